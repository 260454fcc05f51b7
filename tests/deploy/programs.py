"""The options of the built programs, read from their own --help-markdown; and what an install puts where."""
import dataclasses
import pathlib
import re
import subprocess

SERVICES = ("kvstore", "analyzer", "encoder", "qa")
UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclasses.dataclass
class Option:
    flag: str
    env: str
    default: str
    low: str  # "" when the option has no bounds
    high: str

    def refuses(self, text):
        """Why the service would not take this value; "" when it would."""
        if not self.low:
            return ""
        try:
            value = number(text)
        except ValueError:
            return f"{self.flag}: '{text}' is not a number"
        if not number(self.low) <= value <= number(self.high):
            return f"{self.flag}: {text} is not {self.low} to {self.high}"
        return ""


def number(text):
    match = re.fullmatch(r"([0-9.eE+-]+)([KMGT]?)", text)
    if match is None:
        raise ValueError(text)
    return float(match.group(1)) * (1 << UNITS[match.group(2)])


def read_options(program):
    """{"--flag": Option} of a program that is built."""
    options = {}
    text = subprocess.run([program, "--help-markdown"], check=True, capture_output=True, text=True, timeout=60).stdout
    for line in text.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("--") and not cells[0].startswith("---"):
            low, _, high = cells[3].partition(" to ")
            options[cells[0]] = Option(cells[0], cells[1], cells[2], low, high)
    return options


def options_of_services(bin_folder):
    """{service: {"--flag": Option}}."""
    return {name: read_options(pathlib.Path(bin_folder) / f"reelkv-{name}") for name in SERVICES}


def effective(options, argv, env):
    """{"--flag": value} as the program would see it: command line over environment over default."""
    values = {flag: env.get(option.env, option.default) for flag, option in options.items()}
    for argument in argv:
        flag, _, value = argument.partition("=")
        values[flag] = value
    return values
