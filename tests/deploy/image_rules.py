"""What must hold for the Dockerfile: its sources exist, its programs are installed, their libraries and the license come
with them."""
import functools
import os
import pathlib
import re
import subprocess
import tempfile

CONTEXT = ""
RUNTIME = "runtime"
BUILD = "build"


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def install(build_folder, into):
    """cmake --install, as the Dockerfile does it; what it wrote, as paths below `into`."""
    run("cmake", "--install", str(build_folder), env={**os.environ, "DESTDIR": str(into)})
    return sorted(str(path.relative_to(into)) for path in pathlib.Path(into).rglob("*") if path.is_file())


def sources(tree, stages):
    """Every COPY from the context names tracked files, and the build has all that CMake wants."""
    copied = {source for copy in stages[BUILD].copies for source in copy.sources}
    for stage in stages.values():
        for copy in stage.copies:
            if copy.source_stage not in ("", *stages):
                yield f"Dockerfile: {stage.name} copies from {copy.source_stage}, which is no stage"
            for source in copy.sources if copy.source_stage == CONTEXT else []:
                if not run("git", "-C", str(tree), "ls-files", "--", source):
                    yield f"Dockerfile: COPY {source}: no such file in the source tree"
    lists = (tree / "CMakeLists.txt").read_text()
    folders = re.findall(r"^add_subdirectory\((\w+)\)", lists, re.MULTILINE)
    files = " ".join(re.findall(r"^install\(FILES (.+) DESTINATION", lists, re.MULTILINE)).split()
    for wanted in ["CMakeLists.txt", "CMakePresets.json", "cmake", *folders, *files]:
        if wanted not in copied:
            yield f"Dockerfile: the build stage does not copy {wanted}"


def targets(stages):
    """Each target has what it starts and its user is a number; packages come from the one list."""
    if stages[BUILD].setup_groups != ["build"] or stages[RUNTIME].setup_groups != ["image"]:
        yield "Dockerfile: build must install group build, runtime group image"
    for stage in stages.values():
        if stage.base != RUNTIME:
            continue
        programs = {pathlib.PurePath(source).name for copy in stage.copies for source in copy.sources}
        if len(stage.entrypoint) != 1 or pathlib.PurePath(stage.entrypoint[0]).name not in programs:
            yield f"Dockerfile: {stage.name} does not copy what it starts, {stage.entrypoint}"


def installed(stages, files):
    """Every COPY from the build stage is something that cmake --install writes."""
    for stage in stages.values():
        for copy in stage.copies:
            for source in copy.sources if copy.source_stage == BUILD else []:
                path = source.removeprefix("/out/")
                if not any(file == path or file.startswith(path + "/") for file in files):
                    yield f"Dockerfile: {stage.name} copies {source}, which cmake --install does not write"


def license_given(stages, files):
    """Who gets the programs gets the license: an install has it with the README, every image has it."""
    folder = "usr/local/share/doc/reelkv"
    for name in ("LICENSE", "README.md"):
        if f"{folder}/{name}" not in files:
            yield f"cmake --install does not write {folder}/{name}"
    if not any(copy.sources == ["LICENSE"] and copy.target == f"/{folder}/" for copy in stages[RUNTIME].copies):
        yield f"Dockerfile: {RUNTIME}, which every image starts from, does not copy LICENSE to /{folder}/"


def group(tree, name):
    rows = (line.split() for line in (tree / "cmake/packages.txt").read_text().splitlines())
    return {row[1] for row in rows if len(row) == 2 and row[0] == name}


def needed_libraries(binary):
    return re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-d", str(binary)))


@functools.lru_cache(maxsize=None)
def package_of(library):
    """The Debian package that owns a shared library, by the path the linker finds it at."""
    match = re.search(rf"^\s*{re.escape(library)} \(.*\) => (\S+)$", run("ldconfig", "-p"), re.MULTILINE)
    if match is None:
        return ""
    real = os.path.realpath(match.group(1))
    for path in (real, real.removeprefix("/usr")):
        found = subprocess.run(["dpkg", "-S", path], capture_output=True, text=True, timeout=60)
        if found.returncode == 0:
            return found.stdout.split(":")[0]
    return ""


def libraries(tree, binaries):
    """Group image has the packages of all libraries that our programs name, and no library besides."""
    listed = group(tree, "image")
    needed = {}
    for binary in binaries:
        for library in needed_libraries(binary):
            needed.setdefault(package_of(library), f"{binary.name} for {library}")
    for package, user in sorted(needed.items()):
        if package not in listed | {"libc6"}:
            yield f"cmake/packages.txt: group image lacks {package or 'the package'} that {user} needs"
    for package in sorted(listed - set(needed)):
        if package.startswith("lib"):
            yield f"cmake/packages.txt: group image has {package}, which no program in the images needs"


def findings(tree, stages, build_folder, sanitized):
    """`sanitized`: a build whose programs need the sanitizers' libraries says nothing about the image's."""
    found = [*sources(tree, stages), *targets(stages)]
    with tempfile.TemporaryDirectory() as scratch:
        files = install(build_folder, scratch)
        found += installed(stages, files)
        found += license_given(stages, files)
        if not sanitized:
            wanted = {pathlib.PurePath(source).name for stage in stages.values() for copy in stage.copies
                      for source in copy.sources if copy.source_stage == BUILD}
            binaries = [pathlib.Path(scratch) / file for file in files if "/bin/" in file]
            found += libraries(tree, [binary for binary in binaries if binary.name in wanted])
    return found
