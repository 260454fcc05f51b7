"""Starts the pods of rendered manifests on this machine as a kubelet would, and ends them as it would.

Each pod has an address of its own in 127.0.0.0/8, so that ports need not be changed. Only addresses and folders are:
they are appended to the manifest's own arguments, where later ones win.
"""
import dataclasses
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time

import grpc

import kubelet
import kustomize
import programs

SERVING, NOT_SERVING = 1, 2
# Sanitizers make processes slower; a kubelet's own clock would not change, so only the wait for the start does.
SLOW = 4


class PodError(Exception):
    """A sentence about a pod that does not behave."""


def sanitizers():
    """What of this process' environment the processes need besides the manifest's."""
    return {name: value for name, value in os.environ.items() if name == "PATH" or name.endswith("SAN_OPTIONS")}


def health_check(address, service, timeout_s):
    """grpc.health.v1.Health/Check, its two small messages made by hand: field 1 is a string, field 1 an enum."""
    name = service.encode()
    request = bytes([0x0A, len(name)]) + name if name else b""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=None,
                                    response_deserializer=None)
        answer = check(request, timeout=timeout_s)
    return answer[1] if len(answer) == 2 and answer[0] == 0x08 else 0


@dataclasses.dataclass
class Pod:
    name: str
    address: str
    workload: dict
    container: dict
    folder: pathlib.Path
    process: subprocess.Popen = None
    command: list = dataclasses.field(default_factory=list)

    def probe_passes(self, kind):
        probe = self.container[kind]
        timeout_s = probe.get("timeoutSeconds", 1)
        if "grpc" in probe:
            address = f"{self.address}:{probe['grpc']['port']}"
            try:
                return health_check(address, probe["grpc"].get("service", ""), timeout_s) == SERVING
            except grpc.RpcError:
                return False
        port = next(port["containerPort"] for port in self.container["ports"]
                    if port["name"] == probe["tcpSocket"]["port"])
        try:
            socket.create_connection((self.address, port), timeout_s).close()
            return True
        except OSError:
            return False

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def wait_until_started(self, patience):
        """As long as the startup probe gives it; `patience` is 1, or more under sanitizers."""
        probe = self.container["startupProbe"]
        given_s = patience * probe.get("periodSeconds", 10) * probe["failureThreshold"]
        until = time.monotonic() + given_s
        while not self.probe_passes("startupProbe"):
            if self.process.poll() is not None:
                raise PodError(f"{self.name} ended with {self.process.returncode} instead of starting: "
                               f"{' '.join(map(str, self.command))}\n{self.log()}")
            if time.monotonic() > until:
                raise PodError(f"{self.name} was not healthy after {given_s} s\n{self.log()}")
            time.sleep(0.1)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait_until_ended(self, since):
        grace_s = self.workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        try:
            code = self.process.wait(max(0.1, since + grace_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise PodError(f"{self.name} still ran {grace_s} s after SIGTERM\n{self.log()}") from None
        if code != 0:
            raise PodError(f"{self.name} ended with exit code {code}\n{self.log()}")
        return time.monotonic() - since


def pick_network():
    """The first three numbers of a /24 of loopback addresses that nobody listens in; tests run side by side."""
    for _ in range(100):
        network = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"
        with socket.socket() as lock:
            try:
                lock.bind((f"{network}.1", 6379))
                return network
            except OSError:
                continue
    raise PodError("no free loopback network in 100 tries")


def replicas(workload):
    """Pod names as the controllers give them."""
    name = workload["metadata"]["name"]
    for ordinal in range(workload["spec"]["replicas"]):
        stable = workload["kind"] == "StatefulSet"
        yield f"{name}-{ordinal}" if stable else f"{name}-5d8c6b7f9-{'bcdfghjk'[ordinal]}x7qz"


class Machine:
    """Everything the manifests start, as processes of this machine."""

    def __init__(self, cluster, tree, bin_folder, folder):
        self.cluster, self.tree, self.bin = cluster, pathlib.Path(tree), pathlib.Path(bin_folder)
        self.folder = pathlib.Path(folder)
        self.network = pick_network()
        self.pods = []
        self.camera = None
        self.said = ""  # on stderr, by the last command
        numbers = itertools.count(1)
        # Redis first, so that it has the address that the others are told.
        for workload in sorted(cluster.workloads(), key=lambda doc: doc["metadata"]["name"] != "redis"):
            for name in replicas(workload):
                for container in workload["spec"]["template"]["spec"]["containers"]:
                    pod_folder = self.folder / name
                    pod_folder.mkdir()
                    self.pods.append(Pod(name, f"{self.network}.{next(numbers)}", workload, container, pod_folder))

    def local_path(self, pod, path):
        """Where a path of the container lies here; None when it is none of the folders the manifest provides."""
        for mount in pod.container["volumeMounts"]:
            if path == mount["mountPath"] or path.startswith(mount["mountPath"] + "/"):
                return pod.folder / mount["name"] / path[len(mount["mountPath"]):].lstrip("/")
        match = re.fullmatch(r"/usr/local/share/reelkv/(models/.+)", path)
        return self.tree / match.group(1) if match else None

    def overrides(self, pod, options, argv, env):
        values = programs.effective(options, argv, env)
        port = values["--listen"].rpartition(":")[2]
        host, _, redis_port = values["--redis"].rpartition(":")
        redis = next(other for other in self.pods if other.workload["metadata"]["name"] == host)
        changed = [f"--listen={pod.address}:{port}", f"--redis={redis.address}:{redis_port}"]
        for flag, value in values.items():
            local = self.local_path(pod, value) if value.startswith("/") else None
            if local is not None:
                changed.append(f"{flag}={local}")
        return changed

    def start(self, pod, extra):
        """`extra`: {"--flag": value} that this run changes besides, by name of the option."""
        env = kubelet.environment(pod.container, {"metadata.name": pod.name, "status.podIP": pod.address},
                                  kubelet.config_maps(self.cluster.docs))
        argv = kubelet.arguments(pod.container, env)
        service = next((name for _, container, name in self.cluster.services() if container is pod.container), None)
        for mount in pod.container["volumeMounts"]:
            (pod.folder / mount["name"]).mkdir()
        if service is None:
            pod.command = pod.container["command"] + argv
            pod.command += ["--bind", pod.address, "--dir", str(pod.folder)]
        else:
            options = self.cluster.options[service]
            entrypoint = pathlib.PurePath(self.cluster.stages[service].entrypoint[0])
            given = [*argv, *self.overrides(pod, options, argv, env),
                     *(f"{flag}={value}" for flag, value in extra.items() if flag in options)]
            once = {word.partition("=")[0]: word for word in given}  # the last; a program takes each once
            pod.command = [self.bin / entrypoint.name, *once.values()]
        with open(pod.folder / "log", "wb") as log:
            pod.process = subprocess.Popen(pod.command, cwd=pod.folder, env={**sanitizers(), **env},
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def start_all(self, extra, patience):
        for pod in self.pods:
            self.start(pod, extra)
        for pod in self.pods:
            pod.wait_until_started(patience)
            for kind in ("readinessProbe", "livenessProbe"):
                if not pod.probe_passes(kind):
                    raise PodError(f"{pod.name} started, but its {kind} fails\n{pod.log()}")

    def reelkv(self, *words):
        """The command line, run as in the image `tools`: {} when it failed, else what it said."""
        redis = self.pods[0]
        port = redis.container["ports"][0]["containerPort"]
        done = subprocess.run([self.bin / "reelkv", *words, "--json"], cwd=self.folder, capture_output=True,
                              text=True, timeout=200, env={**sanitizers(), "REELKV_REDIS": f"{redis.address}:{port}"})
        self.said = done.stderr
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def wait_for_directory(self, seconds):
        """Every service's pod is in the directory under its own name, at the address the manifest advertises."""
        wanted = {pod.name: f"{pod.address}:{pod.container['ports'][0]['containerPort']}" for pod in self.pods[1:]}
        until = time.monotonic() + seconds
        while True:
            found = {node["name"]: node["address"] for node in self.reelkv("node", "ls").get("nodes", [])}
            if found == wanted:
                return
            if time.monotonic() > until:
                raise PodError(f"`reelkv node ls` shows {found}, not {wanted}\n{self.said}")
            time.sleep(0.2)

    def use(self):
        """A live camera is watched and asked about; it goes on, so that the pods end in the middle of work."""
        source = f"udp://{self.network}.254:5000"
        with open(self.folder / "camera.log", "wb") as log:
            self.camera = subprocess.Popen([self.bin / "truthcam", "--live", source], env=sanitizers(),
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for words in (("cam", "add", "gate", source), ("cam", "wait", "gate", "--frames=4", "--timeout=120"),
                      ("ask", "--cam=gate", "What is there right now?")):
            said = self.reelkv(*words)
            if not said or "answer" in said and not said["evidence"]:
                logs = "\n".join(pod.log()[-2000:] for pod in self.pods)
                raise PodError(f"`reelkv {' '.join(words)}` gave {said or self.said}\n{logs}")

    def check_lame(self, pods, since):
        """For --lame-ms a terminating pod answers, and says that it is not ready."""
        for pod in pods:
            port = pod.container["readinessProbe"]["grpc"]["port"]
            try:
                state = health_check(f"{pod.address}:{port}", "", 1)
            except grpc.RpcError as error:
                raise PodError(f"{pod.name} took no calls {time.monotonic() - since:.1f} s after SIGTERM, while it "
                               f"should only be lame: {error.code()}\n{pod.log()}") from None
            if state != NOT_SERVING:
                raise PodError(f"{pod.name} still calls itself ready after SIGTERM (state {state})")

    def end_all(self):
        """SIGTERM to all at once; seconds each took. Redis goes last, as no service may need it to end."""
        redis, services = self.pods[0], self.pods[1:]
        took = {}
        for pods in (services, [redis]):
            since = time.monotonic()
            for pod in pods:
                pod.terminate()
            if pods is services:
                time.sleep(0.2)
                self.check_lame(services, since)
            took.update({pod.name: pod.wait_until_ended(since) for pod in pods})
        return took

    def kill_all(self):
        for process in [pod.process for pod in self.pods] + [self.camera]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
