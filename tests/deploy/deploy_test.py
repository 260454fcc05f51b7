#!/usr/bin/python3
"""Tests of deploy/: what the manifests and the Dockerfile name exists, and the pods start, answer and end.

usage: deploy_test.py names|selftest|page|pods TREE BUILD_FOLDER    run by ctest (label deploy)
       deploy_test.py rendered TREE OVERLAY FILE   by tools/deploy-check: FILE is what kubectl rendered
"""
import copy
import difflib
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import yaml

import dockerfile
import image_rules
import kustomize
import programs
import rules

K8S = "deploy/k8s"
OVERLAYS = ("base", "overlays/demo")


def read_cluster(tree, build_folder, overlay):
    version = re.search(r"^project\(reelkv VERSION (\S+)", (tree / "CMakeLists.txt").read_text(), re.MULTILINE).group(1)
    return rules.Cluster(docs=kustomize.render(tree / K8S / overlay),
                         stages=dockerfile.read(tree / "deploy/container/Dockerfile"),
                         options=programs.options_of_services(build_folder / "bin"), version=version, tree=tree)


def is_sanitized(build_folder):
    cache = (build_folder / "CMakeCache.txt").read_text()
    return re.search(r"^REELKV_SANITIZE:\w+=\S", cache, re.MULTILINE) is not None


def report(found):
    for sentence in found:
        print(sentence)
    return 1 if found else 0


def names(tree, build_folder):
    found = []
    for overlay in OVERLAYS:
        cluster = read_cluster(tree, build_folder, overlay)
        found += [f"{overlay}: {sentence}" for sentence in rules.findings(cluster)]
    found += image_rules.findings(tree, cluster.stages, build_folder, is_sanitized(build_folder))
    return report(found)


def normal(docs):
    """{identity: document} with config maps' hashes taken off and order that means nothing made equal."""
    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if item is not None}
        if isinstance(value, list):
            items = [plain(item) for item in value]
            named = all(isinstance(item, dict) and "name" in item for item in items)
            return sorted(items, key=lambda item: item["name"]) if named else items
        return re.sub(r"^reelkv-[a-z0-9]{10}$", "reelkv", value) if isinstance(value, str) else value
    docs = [plain(doc) for doc in docs]
    return {kustomize.identity(doc): doc for doc in docs}


def rendered(tree, overlay, file):
    """kubectl's result says the same as kustomize.py's, so what the other tests prove holds for it."""
    ours = normal(kustomize.render(tree / K8S / overlay))
    theirs = normal(yaml.safe_load_all(pathlib.Path(file).read_text()))
    return report([f"{overlay}: {'/'.join(key)} differs between kubectl and tests/deploy/kustomize.py"
                   for key in sorted(set(ours) | set(theirs)) if ours.get(key) != theirs.get(key)])


# What is broken on purpose, and what the rules must say: (kind, name, path, new value, part of the sentence).
CONTAINER = ("spec", "template", "spec", "containers", 0)
BROKEN = (
    ("Service", "qa", ("spec", "selector", "app.kubernetes.io/name"), "qa2", "Service/qa selects no pod"),
    ("Service", "qa", ("spec", "ports", 0, "targetPort"), "http", "Service/qa names port http"),
    ("Service", "kvstore", ("spec", "clusterIP"), "10.0.0.9", "needs a headless Service kvstore"),
    ("PodDisruptionBudget", "kvstore", ("spec", "selector", "matchLabels", "app.kubernetes.io/name"), "kv",
     "no PodDisruptionBudget covers"),
    ("StatefulSet", "kvstore", (*CONTAINER, "readinessProbe", "grpc", "port"), 7305, "readinessProbe asks port 7305"),
    ("Deployment", "redis", (*CONTAINER, "livenessProbe", "tcpSocket", "port"), "grpc", "livenessProbe asks port grpc"),
    ("StatefulSet", "kvstore", (*CONTAINER, "volumeMounts", 1, "name"), "disk", "mounts volume disk"),
    ("StatefulSet", "analyzer", (*CONTAINER, "envFrom", 0, "configMapRef", "name"), "reelkv", None),
    ("StatefulSet", "encoder", (*CONTAINER, "securityContext", "readOnlyRootFilesystem"), False,
     "lacks readOnlyRootFilesystem"),
    ("StatefulSet", "encoder", (*CONTAINER, "image"), "reelkv/encoder:latest", "needs a tag other than latest"),
    ("StatefulSet", "encoder", (*CONTAINER, "image"), "reelkv/eye:0.1.0", "no target eye"),
    ("StatefulSet", "encoder", ("spec", "template", "spec", "securityContext", "runAsUser"), 7, "user of its image"),
    ("ConfigMap", "reelkv", ("data", "REELKV_MODEL"), "/models/x", "is not a model of the source tree"),
    ("StatefulSet", "analyzer", (*CONTAINER, "args", 0), "--nam=$(POD_NAME)", "has no option --nam"),
    ("StatefulSet", "analyzer", (*CONTAINER, "args", 0), "--name=$(POD)", "nothing sets the variable"),
    ("StatefulSet", "analyzer", (*CONTAINER, "args", 1), "--listen=0.0.0.0:7300", "must listen on 0.0.0.0:7302"),
    ("StatefulSet", "analyzer", (*CONTAINER, "args", 4), "--drain-ms=900000", "is not 0 to 600000"),
    ("StatefulSet", "analyzer", ("spec", "template", "spec", "terminationGracePeriodSeconds"), 28,
     "is not above lame + drain"),
    ("StatefulSet", "analyzer", (*CONTAINER, "resources", "limits", "memory"), "512Mi", "as much memory as it may"),
    ("ConfigMap", "reelkv", ("data", "REELKV_RPC_MEMORY_BYTES"), "3G", "MiB and its calls' 3072 MiB"),
    ("StatefulSet", "encoder", (*CONTAINER, "env", 3, "value"), "64", "MiB that 64 cameras may take"),
    ("ConfigMap", "reelkv", ("data", "REELKV_MODLE"), "/models/x", "no service reads REELKV_MODLE"),
    ("ConfigMap", "reelkv", ("data", "REELKV_N_LOCAL"), "0", "is not 1 to"),
    ("ConfigMap", "reelkv", ("data", "REELKV_REDIS"), "directory:6379", "is no Service of these manifests"),
    ("StatefulSet", "kvstore", ("spec", "volumeClaimTemplates", 0, "spec", "resources", "requests", "storage"), "90Gi",
     "the volume is not 5 % larger"),
)


def set_at(doc, path, value):
    for key in path[:-1]:
        doc = doc[key]
    doc[path[-1]] = value


def selftest(tree, build_folder):
    """The rules can fail: each broken manifest is found, for the reason it was broken."""
    sound = read_cluster(tree, build_folder, "base")
    failures = []
    for kind, name, path, value, sentence in BROKEN:
        cluster = copy.deepcopy(sound)
        set_at(kustomize.find(cluster.docs, kind, name), path, value)
        found = rules.findings(cluster)
        if sentence is None and found:
            failures.append(f"{kind}/{name} is sound, but: {found[0]}")
        elif sentence is not None and not any(sentence in finding for finding in found):
            failures.append(f"{kind}/{name} with {path[-1]} {value}: nothing said '{sentence}', but: {found}")
    return report(failures)


def page(tree, build_folder):
    """docs/options.md is what the services say of themselves now."""
    command = [tree / "tools/options-page", build_folder / "bin"]
    written = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    differences = difflib.unified_diff((tree / "docs/options.md").read_text().splitlines(), written.splitlines(),
                                       "docs/options.md", "the services", lineterm="", n=0)
    found = list(differences)
    return report(found + ["tools/options-page build/dev/bin >docs/options.md makes it anew"] if found else [])


def start_and_end(tree, build_folder, overlay, extra):
    import pods

    cluster = read_cluster(tree, build_folder, overlay)
    patience = pods.SLOW if is_sanitized(build_folder) else 1
    with tempfile.TemporaryDirectory(prefix="reelkv-pods-") as folder:
        machine = pods.Machine(cluster, tree, build_folder / "bin", folder)
        try:
            machine.start_all(extra, patience)
            machine.wait_for_directory(10 * patience)
            machine.use()
            took = machine.end_all()
        except pods.PodError as error:
            return report([f"{overlay}: {error}"])
        finally:
            machine.kill_all()
    print(f"{overlay}: " + ", ".join(f"{name} ended in {seconds:.1f} s" for name, seconds in took.items()))
    return 0


def pods_test(tree, build_folder):
    """The demo overlay as it is; the base, whose pods are many and large, with its memory cut down."""
    small = {"--ram-budget-bytes": "64M", "--disk-budget-bytes": "256M", "--pool-bytes": "16M", "--threads": "1"}
    return start_and_end(tree, build_folder, "overlays/demo", {}) or start_and_end(tree, build_folder, "base", small)


def main(argv):
    modes = {"names": names, "selftest": selftest, "page": page, "pods": pods_test}
    if len(argv) == 5 and argv[1] == "rendered":
        return rendered(pathlib.Path(argv[2]), argv[3], argv[4])
    if len(argv) != 4 or argv[1] not in modes:
        print(__doc__, file=sys.stderr)
        return 2
    return modes[argv[1]](pathlib.Path(argv[2]).resolve(), pathlib.Path(argv[3]).resolve())


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C"
    sys.exit(main(sys.argv))
