"""What `kubectl kustomize` does, for the few fields our kustomizations use.

make check has no kubectl, so the manifests are put together here; tools/deploy-check proves that kubectl's result is
the same. Anything else in a kustomization is refused, never ignored.
"""
import copy
import pathlib

import yaml

FIELDS = {"apiVersion", "kind", "resources", "configMapGenerator", "generatorOptions", "images", "patches"}
# Lists that a patch merges item by item, and the field that tells which is which; it replaces all others.
MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


class Refused(Exception):
    """A sentence about a kustomization that cannot be rendered."""


def identity(doc):
    return doc["kind"], doc["metadata"]["name"]


def find(docs, kind, name):
    return next((doc for doc in docs if identity(doc) == (kind, name)), None)


def merge(old, new, field=""):
    """`old` patched with `new`, as a strategic merge."""
    if isinstance(old, dict) and isinstance(new, dict):
        merged = dict(old)
        for key, value in new.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(merged[key], value, key) if key in merged else value
        return merged
    if isinstance(old, list) and field in MERGE_KEYS:
        key = MERGE_KEYS[field]
        changed = {item[key]: item for item in new}
        kept = [merge(item, changed.pop(item[key])) if item[key] in changed else item for item in old]
        return kept + list(changed.values())
    return new


def generate(docs, entry, labels):
    data = dict(literal.split("=", 1) for literal in entry["literals"])
    known = find(docs, "ConfigMap", entry["name"])
    if entry.get("behavior", "create") == "merge":
        if known is None:
            raise Refused(f"nothing to merge ConfigMap {entry['name']} into")
        known["data"].update(data)
    elif known is not None:
        raise Refused(f"ConfigMap {entry['name']} is there already")
    else:
        docs.append({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                     "metadata": {"name": entry["name"], "labels": dict(labels)}})


def pod_template(doc):
    return doc["spec"]["template"] if doc["kind"] in ("Deployment", "StatefulSet") else None


def set_tag(docs, image):
    for doc in filter(pod_template, docs):
        for container in pod_template(doc)["spec"]["containers"]:
            if container["image"] == image["name"]:
                container["image"] = image.get("newName", image["name"]) + ":" + image["newTag"]


def patch(docs, path):
    for change in yaml.safe_load_all(path.read_text()):
        target = find(docs, *identity(change))
        if target is None:
            raise Refused(f"{path} patches {'/'.join(identity(change))}, which is not there")
        docs[docs.index(target)] = merge(target, change)


def render(folder):
    """The documents of a kustomization folder, config maps without the hash in their name."""
    folder = pathlib.Path(folder)
    rules = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(rules) - FIELDS
    if unknown:
        raise Refused(f"{folder}: kustomize.py does not know {', '.join(sorted(unknown))}")
    docs = []
    for name in rules.get("resources", []):
        path = folder / name
        docs += render(path) if path.is_dir() else copy.deepcopy(list(yaml.safe_load_all(path.read_text())))
    for entry in rules.get("configMapGenerator", []):
        generate(docs, entry, rules.get("generatorOptions", {}).get("labels", {}))
    for entry in rules.get("patches", []):
        if set(entry) != {"path"}:
            raise Refused(f"{folder}: kustomize.py knows patches by path only")
        patch(docs, folder / entry["path"])
    for image in rules.get("images", []):
        set_tag(docs, image)
    return docs
