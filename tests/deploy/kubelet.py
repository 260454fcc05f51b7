"""What a kubelet makes of a pod template: its environment, its command line, the bytes of its quantities."""
import math
import re

SUFFIXES = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30,
            "Ti": 1 << 40}


def quantity(text):
    """"512Mi" -> 536870912.0, "250m" -> 0.25."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    if match is None or match.group(2) not in SUFFIXES:
        raise ValueError(f"'{text}' is not a quantity")
    return float(match.group(1)) * SUFFIXES[match.group(2)]


def expand(text, env):
    """$(NAME) becomes its value where there is one; $$ is a dollar."""
    def replace(match):
        if match.group(0) == "$$":
            return "$"
        return env.get(match.group(1), match.group(0))
    return re.sub(r"\$\$|\$\(([A-Za-z0-9_]+)\)", replace, text)


def value_from(source, container, fields):
    if "fieldRef" in source:
        return fields[source["fieldRef"]["fieldPath"]]
    if "resourceFieldRef" in source:
        kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
        divisor = quantity(source["resourceFieldRef"].get("divisor", "1"))
        return str(math.ceil(quantity(container["resources"][kind][name]) / divisor))
    raise ValueError(f"kubelet.py does not know {', '.join(source)}")


def environment(container, fields, config_maps):
    """fields: {"metadata.name": ..., "status.podIP": ...}; config_maps: {name: {key: value}}."""
    env = {}
    for source in container.get("envFrom", []):
        env.update(config_maps[source["configMapRef"]["name"]])
    for entry in container.get("env", []):
        if "value" in entry:
            env[entry["name"]] = expand(entry["value"], env)
        else:
            env[entry["name"]] = value_from(entry["valueFrom"], container, fields)
    return env


def arguments(container, env):
    return [expand(text, env) for text in container.get("args", [])]


def config_maps(docs):
    return {doc["metadata"]["name"]: doc["data"] for doc in docs if doc["kind"] == "ConfigMap"}
