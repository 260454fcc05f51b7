"""What must hold in the rendered manifests. A rule yields one sentence a finding."""
import dataclasses
import json
import pathlib

import dockerfile
import kubelet
import kustomize
import programs

LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/part-of")
GRACE_SPARE_MS = 5000  # for what a service does after its drain: closing files, ending children
CAMERA_BYTES = 64 << 20  # of a 1080p camera: its decoder and the pictures it may hold (docs/deploy.md)


@dataclasses.dataclass
class Cluster:
    docs: list
    stages: dict    # of the Dockerfile
    options: dict   # {service: {"--flag": Option}}
    version: str    # the project's
    tree: pathlib.Path

    def kind(self, *kinds):
        return [doc for doc in self.docs if doc["kind"] in kinds]

    def workloads(self):
        return self.kind("Deployment", "StatefulSet")

    def containers(self):
        """(workload, container) of every pod; one a pod here, but no rule relies on that."""
        for doc in self.workloads():
            for container in doc["spec"]["template"]["spec"]["containers"]:
                yield doc, container

    def own_images(self):
        """(workload, container, image name) of the pods that run our own images."""
        for doc, container in self.containers():
            repository = container["image"].rpartition(":")[0]
            if repository.startswith("reelkv/"):
                yield doc, container, repository.removeprefix("reelkv/")

    def services(self):
        """Those whose image is a service's; images() reports the others."""
        return [found for found in self.own_images() if found[2] in self.options]


def title(doc):
    return "/".join(kustomize.identity(doc))


def selects(selector, doc):
    """The workloads' pods that a {label: value} selects; an empty one selects none here."""
    labels = doc["spec"]["template"]["metadata"]["labels"]
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def ports_of(container):
    return {port["name"]: port["containerPort"] for port in container.get("ports", []) if "name" in port}


def labels(cluster):
    for doc in cluster.docs:
        if "namespace" in doc["metadata"]:
            yield f"{title(doc)} names a namespace; that is for whoever deploys it"
        if doc["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") != "reelkv":
            yield f"{title(doc)} lacks the label app.kubernetes.io/part-of: reelkv"
    for doc in cluster.workloads():
        if not selects(doc["spec"]["selector"]["matchLabels"], doc):
            yield f"{title(doc)} does not select its own pods"
        if set(doc["spec"]["selector"]["matchLabels"]) != set(LABELS):
            yield f"{title(doc)} must select by {' and '.join(LABELS)}"


def selectors(cluster):
    """Services, budgets, policies and spreads reach pods that exist."""
    wanted = [(doc, doc["spec"]["selector"]) for doc in cluster.kind("Service")]
    wanted += [(doc, doc["spec"]["selector"]["matchLabels"]) for doc in cluster.kind("PodDisruptionBudget")]
    wanted += [(doc, doc["spec"]["podSelector"]["matchLabels"]) for doc in cluster.kind("NetworkPolicy")]
    for doc in cluster.workloads():
        for spread in doc["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            wanted.append((doc, spread["labelSelector"]["matchLabels"]))
    for doc, selector in wanted:
        if not any(selects(selector, pod) for pod in cluster.workloads()):
            yield f"{title(doc)} selects no pod of these manifests: {selector}"
    budgets = cluster.kind("PodDisruptionBudget")
    for doc in cluster.workloads():
        if doc["metadata"]["name"] == "kvstore" and not any(
                selects(budget["spec"]["selector"]["matchLabels"], doc) for budget in budgets):
            yield "no PodDisruptionBudget covers the kvstore pods"


def named_ports(cluster):
    """A Service's and a policy's port is one that the pods it selects have."""
    wanted = [(doc, doc["spec"]["selector"], port["targetPort"]) for doc in cluster.kind("Service")
              for port in doc["spec"]["ports"]]
    for doc in cluster.kind("NetworkPolicy"):
        for rule in doc["spec"]["ingress"]:
            wanted += [(doc, doc["spec"]["podSelector"]["matchLabels"], port["port"]) for port in rule.get("ports", [])]
    for doc, selector, port in wanted:
        for pod, container in cluster.containers():
            if selects(selector, pod) and port not in ports_of(container):
                yield f"{title(doc)} names port {port}, which {title(pod)} does not have"
    for doc, container in cluster.containers():
        if not container.get("ports") or any("name" not in port for port in container["ports"]):
            yield f"{title(doc)}: every port of {container['name']} needs a name"


def probes(cluster):
    for doc, container in cluster.containers():
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind, {})
            port = probe.get("grpc", probe.get("tcpSocket", {})).get("port")
            known = ports_of(container)
            if port is None:
                yield f"{title(doc)}: {container['name']} has no {kind} over gRPC or TCP"
            elif port not in (known.values() if "grpc" in probe else known):
                yield f"{title(doc)}: {kind} asks port {port}, which {container['name']} does not name"
    for doc, container, _ in cluster.services():
        if any("grpc" not in container.get(kind, {}) for kind in ("startupProbe", "readinessProbe", "livenessProbe")):
            yield f"{title(doc)}: the probes of a service speak gRPC"


def references(cluster):
    """Config maps, volumes, claims and governing Services exist."""
    maps = kubelet.config_maps(cluster.docs)
    claims = {doc["metadata"]["name"] for doc in cluster.kind("PersistentVolumeClaim")}
    for doc, container in cluster.containers():
        spec = doc["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in doc["spec"].get("volumeClaimTemplates", [])}
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{title(doc)} mounts volume {mount['name']}, which it does not have"
        for volume in spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim is not None and claim not in claims:
                yield f"{title(doc)} uses the claim {claim}, which is not in these manifests"
        for source in container.get("envFrom", []):
            if source["configMapRef"]["name"] not in maps:
                yield f"{title(doc)} reads ConfigMap {source['configMapRef']['name']}, which does not exist"
    for doc in cluster.kind("StatefulSet"):
        service = kustomize.find(cluster.docs, "Service", doc["spec"]["serviceName"])
        if not (service and service["spec"].get("clusterIP") == "None" and selects(service["spec"]["selector"], doc)):
            yield f"{title(doc)} needs a headless Service {doc['spec']['serviceName']} that selects it"


def restricted(cluster):
    """The fields that the Pod Security level `restricted` asks for, and a root that cannot be written."""
    for doc, container in cluster.containers():
        spec = doc["spec"]["template"]["spec"]
        pod, own = spec.get("securityContext", {}), container.get("securityContext", {})
        found = {
            "runAsNonRoot: true": pod.get("runAsNonRoot") is True,
            "runAsUser other than 0": pod.get("runAsUser", 0) != 0,
            "seccompProfile RuntimeDefault": pod.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "allowPrivilegeEscalation: false": own.get("allowPrivilegeEscalation") is False,
            "readOnlyRootFilesystem: true": own.get("readOnlyRootFilesystem") is True,
            "capabilities drop ALL": own.get("capabilities", {}).get("drop") == ["ALL"] and
                                     "add" not in own.get("capabilities", {}),
            "no host namespaces or privileges": not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
                                                and not own.get("privileged"),
            "volumes without hostPath": not any("hostPath" in volume for volume in spec.get("volumes", [])),
            "automountServiceAccountToken: false": spec.get("automountServiceAccountToken") is False,
            # Kubernetes would add REDIS_PORT and the like, and one day a REELKV_ name that is an option.
            "enableServiceLinks: false": spec.get("enableServiceLinks") is False,
        }
        for what, holds in found.items():
            if not holds:
                yield f"{title(doc)}: {container['name']} lacks {what}"
        if "/tmp" not in [mount["mountPath"] for mount in container.get("volumeMounts", [])]:
            yield f"{title(doc)}: {container['name']} has no /tmp to write to"


def images(cluster):
    """Our images are targets of the Dockerfile, with its user and ports, at the project's version."""
    for doc, container in cluster.containers():
        repository, _, tag = container["image"].rpartition(":")
        if not repository or "/" in tag or tag == "latest":
            yield f"{title(doc)}: image {container['image']} needs a tag other than latest"
    for doc, container, name in cluster.own_images():
        stage = cluster.stages.get(name)
        if stage is None:
            yield f"{title(doc)}: the Dockerfile has no target {name}"
            continue
        if container["image"].rpartition(":")[2] != cluster.version:
            yield f"{title(doc)}: image {container['image']} is not of version {cluster.version}"
        who = doc["spec"]["template"]["spec"].get("securityContext", {})
        if dockerfile.user(cluster.stages, name) != f"{who.get('runAsUser')}:{who.get('runAsGroup')}":
            yield f"{title(doc)} does not run as the user of its image, {dockerfile.user(cluster.stages, name)}"
        if sorted(ports_of(container).values()) != sorted(stage.ports):
            yield f"{title(doc)}: ports {ports_of(container)} are not what target {name} exposes, {stage.ports}"


def options(cluster):
    """Every argument and every REELKV_ variable is an option of the service, with a value it takes."""
    maps = kubelet.config_maps(cluster.docs)
    used = set()
    for doc, container, service in cluster.services():
        known = cluster.options[service]
        by_env = {option.env: option for option in known.values()}
        env = kubelet.environment(container, {"metadata.name": "pod-0", "status.podIP": "10.0.0.1"}, maps)
        for argument in kubelet.arguments(container, env):
            flag, equals, value = argument.partition("=")
            if not equals:
                yield f"{title(doc)}: write {argument} as --option=value"
            elif flag not in known:
                yield f"{title(doc)}: reelkv-{service} has no option {flag}"
            elif known[flag].refuses(value):
                yield f"{title(doc)}: {known[flag].refuses(value)}"
            elif "$(" in value:
                yield f"{title(doc)}: nothing sets the variable in {argument}"
        for entry in container.get("env", []):
            if entry["name"].startswith("REELKV_") and entry["name"] not in by_env:
                yield f"{title(doc)}: reelkv-{service} reads no {entry['name']}"
        for name in set(env) & set(by_env):
            used.add(name)
            if by_env[name].refuses(env[name]):
                yield f"{title(doc)}: {name}: {by_env[name].refuses(env[name])}"
    for name, data in maps.items():
        for key in sorted(set(data) - used):
            yield f"ConfigMap {name}: no service reads {key}"


def values_of(cluster, container, service):
    env = kubelet.environment(container, {"metadata.name": "pod-0", "status.podIP": "10.0.0.1"},
                              kubelet.config_maps(cluster.docs))
    return programs.effective(cluster.options[service], kubelet.arguments(container, env), env)


def grace(cluster):
    for doc, container, service in cluster.services():
        values = values_of(cluster, container, service)
        needed_ms = float(values["--lame-ms"]) + float(values["--drain-ms"]) + GRACE_SPARE_MS
        given_s = doc["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        if given_s * 1000 <= needed_ms:
            yield (f"{title(doc)}: terminationGracePeriodSeconds {given_s} is not above lame + drain + "
                   f"{GRACE_SPARE_MS // 1000} s = {needed_ms / 1000:g} s")
        if float(values["--lame-ms"]) <= 1000 * container["readinessProbe"].get("periodSeconds", 10):
            yield f"{title(doc)}: --lame-ms must outlast a period of the readiness probe"


def addresses(cluster):
    for doc, container, service in cluster.services():
        values = values_of(cluster, container, service)
        for port in ports_of(container).values():
            if values["--listen"] != f"0.0.0.0:{port}" or values["--advertise"] != f"10.0.0.1:{port}":
                yield f"{title(doc)} must listen on 0.0.0.0:{port} and advertise $(POD_IP):{port}"
        host, _, port = values["--redis"].rpartition(":")
        redis = kustomize.find(cluster.docs, "Service", host)
        if redis is None or int(port) not in [entry["port"] for entry in redis["spec"]["ports"]]:
            yield f"{title(doc)}: --redis {values['--redis']} is no Service of these manifests"


def model_folder(cluster, path):
    return cluster.tree / path.removeprefix("/usr/local/share/reelkv/")


def embedding_bytes(folder):
    """What a frame takes between the vision tower and the language model, in f32; 0 for no model."""
    if not (folder / "config.json").exists():
        return 0
    config = json.loads((folder / "config.json").read_text())
    side = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]
    return ((side + 1) // 2) ** 2 * config["text_config"]["hidden_size"] * 4


def encoder_size(doc, container, values, folder):
    """Every camera of an encoder may hold all the frames it is allowed to, as when the analyzers are away."""
    limit = kubelet.quantity(container["resources"]["limits"]["memory"])
    streams, frames = (int(values["--max-streams"]), int(values["--keep-frames"]) + int(values["--capture-slots"]))
    needed = (programs.number(values["--rpc-memory-bytes"]) + sum(file.stat().st_size for file in folder.glob("*")) +
              streams * (CAMERA_BYTES + frames * embedding_bytes(folder)))
    if needed > limit:
        yield (f"{title(doc)}: memory limit {limit / 2**20:.0f} MiB is under the {needed / 2**20:.0f} MiB that "
               f"{streams} cameras may take")


def sizes(cluster):
    """Memory and disk are promised before they are used."""
    for doc, container in cluster.containers():
        resources = container.get("resources", {})
        memory = [resources.get(kind, {}).get("memory") for kind in ("requests", "limits")]
        if memory[0] is None or memory[0] != memory[1] or "cpu" not in resources["requests"]:
            yield f"{title(doc)}: {container['name']} must request cpu, and as much memory as it may take"
    for doc, container, service in cluster.services():
        values = values_of(cluster, container, service)
        limit = kubelet.quantity(container["resources"]["limits"]["memory"])
        pools = sum(programs.number(values.get(flag, "0")) for flag in ("--ram-budget-bytes", "--pool-bytes"))
        calls = programs.number(values["--rpc-memory-bytes"])
        if pools * 1.25 + calls > limit:
            yield (f"{title(doc)}: memory limit {limit / 2**20:.0f} MiB is under 1.25 times its pools' "
                   f"{pools / 2**20:.0f} MiB and its calls' {calls / 2**20:.0f} MiB")
        if service == "encoder":
            yield from encoder_size(doc, container, values, model_folder(cluster, values["--model"]))
        if "--path" not in values:
            continue
        claim = next((claim for claim in doc["spec"].get("volumeClaimTemplates", []) for mount in
                      container["volumeMounts"] if mount["name"] == claim["metadata"]["name"] and
                      values["--path"].startswith(mount["mountPath"])), None)
        if claim is None:
            yield f"{title(doc)}: --path {values['--path']} is not on a claimed volume"
        elif programs.number(values["--disk-budget-bytes"]) * 1.05 > kubelet.quantity(
                claim["spec"]["resources"]["requests"]["storage"]):
            yield f"{title(doc)}: the volume is not 5 % larger than --disk-budget-bytes {values['--disk-budget-bytes']}"


def model(cluster):
    """The demo model's folder is in the images, and what it advises (reelkv.json) is what the pods are told."""
    for data in kubelet.config_maps(cluster.docs).values():
        folder = model_folder(cluster, data["REELKV_MODEL"])
        if not (folder / "config.json").exists():
            yield f"REELKV_MODEL {data['REELKV_MODEL']} is not a model of the source tree"
        advice = folder / "reelkv.json"
        for key, value in json.loads(advice.read_text()).items() if advice.exists() else ():
            if data.get(f"REELKV_{key.upper()}") != str(value):
                yield f"ConfigMap reelkv: the model advises {key} {value}, not {data.get(f'REELKV_{key.upper()}')}"


RULES = (labels, selectors, named_ports, probes, references, restricted, images, options, grace, addresses, sizes,
         model)


def findings(cluster):
    return [sentence for rule in RULES for sentence in rule(cluster)]
