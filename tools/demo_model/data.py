"""Truth-camera videos as training data: made by the truthcam tool, decoded after H.264, sampled at 2 fps, cached.

A prepared video is a folder `<seed>/` with `frames.npy` (uint8 [T, S, S, 3], resized exactly as the engine does) and
`truth.json` as truthcam wrote it. Seeds from TRAIN_SEED_FIRST on are for training; scoring uses seeds below it.
"""

import json
import math
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

TRAIN_SEED_FIRST = 1_000_000
WIDTH, HEIGHT, CAMERA_FPS = 640, 360, 30
FRAME_STEP = 15
SAMPLE_FPS = CAMERA_FPS / FRAME_STEP


@dataclass(frozen=True)
class Sighting:
    """One object's stay before the camera."""

    shape: str
    color: str
    place: str
    enter: float
    exit: float


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str
    as_of: float
    spans: tuple[tuple[float, float], ...]


@dataclass
class Video:
    seed: int
    frames: Tensor
    sightings: list[Sighting]
    questions: list[Question]

    @property
    def times(self) -> Tensor:
        return torch.arange(len(self.frames)) / SAMPLE_FPS

    def evidence(self, question: Question) -> Tensor:
        """Which frames lie in the question's evidence spans: [T]."""
        times = self.times
        found = torch.zeros(len(times), dtype=torch.bool)
        for start, end in question.spans:
            found |= (times >= start) & (times <= end)
        return found & (times <= question.as_of)

    def visible(self) -> list[list[int]]:
        """For every frame the indices of the sightings it shows."""
        shown: list[list[int]] = [[] for _ in range(len(self.frames))]
        for index, sighting in enumerate(self.sightings):
            for frame in np.flatnonzero((self.times.numpy() >= sighting.enter) & (self.times.numpy() <= sighting.exit)):
                shown[frame].append(index)
        return shown


def pixels(frames: Tensor) -> Tensor:
    """uint8 [N, S, S, 3] to what the vision tower takes: [N, 3, S, S] in -1..1."""
    return (frames.permute(0, 3, 1, 2).float() / 255.0 - 0.5) / 0.5


def load_video(folder: Path) -> Video:
    truth = json.loads((folder / "truth.json").read_text())
    sightings = [
        Sighting(o["shape"], o["color"], o["place"], float(o["enter_s"]), float(o["exit_s"])) for o in truth["objects"]
    ]
    questions = [
        Question(
            q["kind"],
            q["text"],
            str(q["answer"]),
            math.inf if q["as_of_s"] is None else float(q["as_of_s"]),
            tuple((s, e) for s, e in q["evidence"]),
        )
        for q in truth["questions"]
    ]
    frames = torch.from_numpy(np.load(folder / "frames.npy"))
    return Video(int(folder.name), frames, sightings, questions)


def decode(path: Path, size: int) -> np.ndarray:
    """Every FRAME_STEP-th frame of a video, resized by Pillow's bicubic as the processor does: [T, size, size, 3]."""
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path)]
    command += ["-vf", f"select=not(mod(n\\,{FRAME_STEP}))", "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    frame_bytes = WIDTH * HEIGHT * 3
    if not raw or len(raw) % frame_bytes:
        raise ValueError(f"{path}: decoded {len(raw)} bytes, not whole {WIDTH}x{HEIGHT} pictures")
    pictures = np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
    small = [
        np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)) for picture in pictures
    ]
    return np.stack(small)


@dataclass(frozen=True)
class Shoot:
    """A batch of videos to make: one for every seed, all of one length and profile."""

    seeds: range
    seconds: int
    profile: str
    questions: int


def prepare_video(truthcam: Path, shoot: Shoot, seed: int, folder: Path, size: int) -> None:
    """Makes one video, keeps its sampled pictures and its truth, drops the rest. A finished folder is left as it is."""
    if folder.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        video, truth = scratch / "video.mp4", scratch / "truth.json"
        command = [str(truthcam), "--seed", str(seed), "--seconds", str(shoot.seconds), "--profile", shoot.profile]
        command += ["--questions", str(shoot.questions), "--out", str(video), "--truth", str(truth)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        done = scratch / "done"
        done.mkdir()
        np.save(done / "frames.npy", decode(video, size))
        os.replace(truth, done / "truth.json")
        os.replace(done, folder)


def prepare_videos(truthcam: Path, shoot: Shoot, into: Path, size: int) -> list[Path]:
    """Makes what is missing of a shoot, two at a time, with a progress line; returns the folders in seed order."""
    into.mkdir(parents=True, exist_ok=True)
    folders = [into / f"{seed:08d}" for seed in shoot.seeds]

    def work(at: int) -> None:
        prepare_video(truthcam, shoot, shoot.seeds[at], folders[at], size)

    with ThreadPoolExecutor(max_workers=2) as pool:
        for count, _ in enumerate(pool.map(work, range(len(folders))), 1):
            if count % 10 == 0 or count == len(folders):
                print(f"videos {into.name}: {count} of {len(folders)}", flush=True)
    return folders


def vocabulary(truthcam: Path) -> list[str]:
    """Every question and answer there can be."""
    text = subprocess.run([str(truthcam), "--vocabulary"], check=True, capture_output=True, text=True).stdout
    return [line for line in text.splitlines() if line]
