#!/usr/bin/python3
"""Scores a ReelKV cluster on cameras that know the truth, end to end: H.264 files through encoder, analyzer and
kvstore, questions to qa. Every question is asked under several selectors; see docs/demo-model.md for the table.

    bench/score/score.py BUILD_DIR --videos 15 --questions 70           # 300-frame cameras
    bench/score/score.py BUILD_DIR --profile long --seconds 5000 --videos 8 --selectors rekv,oracle
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import json
import os
import pathlib
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile

import reelkv_client
from score_table import Row, markdown, missed_goals, summarise

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SAMPLE_FPS = 2
START_NS = 1767225600 * 10**9  # 2026-01-01T00:00:00Z: where every scored file begins
SELECTORS = ["rekv", "oracle", "recent", "spread", "random", "all", "blind"]


def run(command, **options):
    """Runs a program to its end; its output is shown only when it fails."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n  ended with {result.returncode}: {result.stdout}{result.stderr}")
    return result.stdout


class Cluster:
    """A running cluster, by the command line."""

    def __init__(self, reelkv, folder):
        self.reelkv = reelkv
        self.folder = folder

    def verb(self, *words):
        return run([self.reelkv, *words, "--data", self.folder / "data", "--json"])

    def qa_address(self):
        nodes = json.loads(self.verb("node", "ls"))["nodes"]
        address = next(node["address"] for node in nodes if node["kind"] == "qa")
        return address


@contextlib.contextmanager
def start_cluster(build, options):
    """A cluster of its own for one scoring, in a folder of its own. It ends with this program, however that ends."""
    reelkv = build / "bin/reelkv"
    with tempfile.TemporaryDirectory(prefix="reelkv-score-") as folder:
        log = pathlib.Path(folder, "up.log")
        command = ["setpriv", "--pdeathsig", "TERM", reelkv, "up", "--foreground", "--data", f"{folder}/data",
                   "--model", options.model, "--dtype", options.dtype, "--n-local", str(options.n_local),
                   "--ram", "2G", "--disk", "8G"]
        with log.open("w") as errors, \
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as up:
            try:
                if not up.stdout.readline():  # its banner comes when everything is ready
                    sys.exit(f"reelkv up ended with {up.wait()}: {log.read_text()}")
                yield Cluster(reelkv, pathlib.Path(folder))
            finally:
                up.terminate()


def record(folder, seed, build, options):
    """The files of one camera and its truth in folder; those that are there already are used again."""
    stem = f"{options.profile}-{options.seconds}s-{options.questions}q-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    video, truth = folder / f"{stem}.mp4", folder / f"{stem}.json"
    if not truth.exists():
        part = folder / f"{stem}.part.mp4", folder / f"{stem}.part.json"
        run([build / "bin/truthcam", "--seed", seed, "--seconds", options.seconds, "--profile", options.profile,
             "--questions", options.questions, "--out", part[0], "--truth", part[1]])
        part[0].rename(video)
        part[1].rename(truth)
    return video, truth


def make_cameras(cluster, build, options):
    """Writes the videos, adds them as cameras, waits until all of them is stored. Returns {name: truth}."""
    truths = {}
    for index in range(options.videos):
        seed = options.seed + index
        name = f"truth-{seed}"
        video, truth = record(options.cameras or cluster.folder, seed, build, options)
        cluster.verb("cam", "add", name, str(video), "--fps", str(SAMPLE_FPS), "--start-time", "2026-01-01T00:00:00Z")
        truths[name] = json.loads(truth.read_text())
        print(f"\rmade {index + 1} of {options.videos} cameras", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    cluster.verb("cam", "wait", *truths, "--timeout", "3600")
    return truths


def evidence_spans(question):
    """Sequence numbers of the samples in each evidence span."""
    return [[seq for seq in range(int(start * SAMPLE_FPS), int(end * SAMPLE_FPS) + 1)
             if start <= seq / SAMPLE_FPS <= end] for start, end in question["evidence"]]


def frames_before(question, total):
    """How many frames a question may see."""
    return total if question["as_of_s"] is None else min(total, int(question["as_of_s"] * SAMPLE_FPS) + 1)


def named_frames(selector, question, total, options):
    """The frames of the controls that name theirs."""
    visible = frames_before(question, total)
    dice = random.Random(f"{selector} {question['text']} {question['as_of_s']}")
    recent = list(range(max(0, visible - options.recent), visible))
    if selector == "blind":
        return []
    if selector == "spread":
        return sorted({visible * (2 * i + 1) // (2 * options.top) for i in range(options.top)} | set(recent))
    if selector == "random":
        return sorted(set(dice.sample(range(visible), min(options.top, visible))) | set(recent))
    named = [seq for span in evidence_spans(question) for seq in span if seq < visible][: options.top]
    return sorted(set(named) | set(recent))


def request_for(messages, kinds, name, question, selector, total, options):
    request = messages.AskRequest(namespace="default", streams=[name], question=question["text"], layer_lists=True)
    request.max_tokens.value = 16
    if question["as_of_s"] is not None:
        request.as_of_ns = START_NS + int(question["as_of_s"] * 1e9)
    if selector in ("rekv", "recent", "all"):
        request.selector = getattr(kinds, f"SELECTOR_KIND_{selector.upper()}")
        request.top_r.value = options.top
        request.recent_window.value = options.recent if selector == "rekv" else 0
    else:
        request.selector = kinds.SELECTOR_KIND_EXTERNAL
        for seq in named_frames(selector, question, total, options):
            request.frames.add(stream=0, seq=seq)
    return request


def recall_of(question, answer):
    """Share of the evidence spans of which a layer read a frame, mean over layers; None where nothing past is asked."""
    spans = [set(span) for span in evidence_spans(question) if span]
    if not spans or not answer.layers or question["kind"] == "now":
        return None
    shares = [sum(bool(span & set(chosen)) for span in spans) / len(spans) for chosen in answer.layers.values()]
    return sum(shares) / len(shares)


def ask_all(qa, messages, kinds, truths, selector, options):
    """A Row for every question under one selector."""
    total = options.seconds * SAMPLE_FPS

    def ask(work):
        name, question = work
        answer = qa.ask(request_for(messages, kinds, name, question, selector, total, options))
        said = answer.text.strip().lower()
        return Row(question["kind"], said == question["answer"], said, question["answer"], recall_of(question, answer))

    work = [(name, question) for name, truth in truths.items() for question in truth["questions"]]
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        rows = []
        for row in pool.map(ask, work):
            rows.append(row)
            if len(rows) % 20 == 0:
                print(f"\r{selector}: {len(rows)} of {len(work)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def machine():
    """The processor's name and how many of it there are."""
    names = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="build folder, e.g. build/release")
    parser.add_argument("--model", type=pathlib.Path, default=SOURCE / "models/reelkv-demo")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--n-local", type=int, default=256)
    parser.add_argument("--videos", type=int, default=15)
    parser.add_argument("--seed", type=int, default=100, help="first camera's seed; training used seeds from 1,000,000")
    parser.add_argument("--seconds", type=int, default=150)
    parser.add_argument("--profile", default="score", choices=["demo", "score", "long"])
    parser.add_argument("--questions", type=int, default=70, help="asked of each camera")
    parser.add_argument("--cameras", type=pathlib.Path, help="folder that keeps the videos for the next time")
    parser.add_argument("--top", type=int, default=8, help="frames each layer retrieves")
    parser.add_argument("--recent", type=int, default=1, help="newest frames always added")
    parser.add_argument("--selectors", default=",".join(SELECTORS))
    parser.add_argument("--goal", action="append", default=[], help="e.g. rekv.all>=0.97; missed: exit code 1")
    parser.add_argument("--out", type=pathlib.Path, help="JSON of the table, with machine and date")
    return parser.parse_args()


def main():
    options = parse_options()
    messages, kinds = reelkv_client.load_messages()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    table = {}
    with start_cluster(options.build.resolve(), options) as cluster:
        truths = make_cameras(cluster, options.build.resolve(), options)
        qa = reelkv_client.Qa(cluster.qa_address(), messages)
        for selector in options.selectors.split(","):
            table[selector] = summarise(ask_all(qa, messages, kinds, truths, selector, options))
    kept = ("dtype", "n_local", "videos", "seed", "seconds", "profile", "questions", "top", "recent")
    setting = {"model": options.model.name, "fps": SAMPLE_FPS} | {key: getattr(options, key) for key in kept}
    result = {"date": datetime.date.today().isoformat(), "machine": machine(), "setting": setting, "table": table}
    print(markdown(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    missed = missed_goals(table, options.goal)
    if missed:
        print("\n".join(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
