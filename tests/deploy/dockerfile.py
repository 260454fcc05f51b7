"""The Dockerfile as stages: what each starts from, copies, exposes and runs."""
import dataclasses
import json
import pathlib
import shlex


@dataclasses.dataclass
class Copy:
    source_stage: str  # "" is the build context
    sources: list
    target: str


@dataclasses.dataclass
class Stage:
    name: str
    base: str
    copies: list = dataclasses.field(default_factory=list)
    ports: list = dataclasses.field(default_factory=list)
    entrypoint: list = dataclasses.field(default_factory=list)
    user: str = ""
    setup_groups: list = dataclasses.field(default_factory=list)


def instructions(text):
    """(KEYWORD, rest) of every instruction, continued lines joined."""
    joined = ""
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        joined += line
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        keyword, _, rest = joined.strip().partition(" ")
        yield keyword.upper(), rest.strip()
        joined = ""


def read_copy(rest):
    words = shlex.split(rest)
    options = [word for word in words if word.startswith("--")]
    paths = [word for word in words if not word.startswith("--")]
    stage = next((word.removeprefix("--from=") for word in options if word.startswith("--from=")), "")
    return Copy(stage, paths[:-1], paths[-1])


def read_setup_groups(rest):
    for command in rest.replace("&&", ";").split(";"):
        words = command.split()
        if words and words[0].endswith("tools/setup"):
            return words[1:]
    return []


def read(path):
    """{name: Stage}; every stage of ours has a name."""
    stages = {}
    stage = None
    for keyword, rest in instructions(pathlib.Path(path).read_text()):
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(name, base)
        elif keyword == "COPY":
            stage.copies.append(read_copy(rest))
        elif keyword == "EXPOSE":
            stage.ports += [int(port) for port in rest.split()]
        elif keyword == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        elif keyword == "USER":
            stage.user = rest
        elif keyword == "RUN":
            stage.setup_groups += read_setup_groups(rest)
        elif keyword not in ("ARG", "WORKDIR"):
            raise ValueError(f"{path}: dockerfile.py does not know {keyword}")
    return stages


def user(stages, name):
    """Who the image runs as: its own USER or that of what it starts from."""
    while name in stages:
        if stages[name].user:
            return stages[name].user
        name = stages[name].base
    return ""
