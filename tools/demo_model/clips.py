"""Training clips: short streams cut from prepared videos and spliced so that alike objects meet.

A scoring camera shows a few objects among long empty stretches. A clip packs such scenes closely, each with the
empty samples that came before it, and prefers scenes of a small family of shapes and colours, so that most
questions about it have something that could be taken for the answer; one object comes back more often than chance
would have it, for the questions that count. Some clips are plain contiguous cuts.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from data import Sighting, Video
from questions import COLORS, PLACES, SHAPES, Stay

MIRRORED = {
    "top left": "top right",
    "top right": "top left",
    "bottom left": "bottom right",
    "bottom right": "bottom left",
}

RETURNS_MAX = 3
FAMILY = (2, 2, 2, 3, 4)  # shapes, or colours; with two of each, "the green square or the blue circle" has both crosses


@dataclass
class Clip:
    """Frames of one training stream, as indices into the library; mirrored clips swap left and right."""

    frames: list[int]
    stays: list[Stay]
    mirrored: bool


@dataclass(frozen=True)
class Scene:
    """Library frames start..stop-1 in which the same sightings are in view."""

    start: int
    stop: int
    sightings: tuple[int, ...]


class Library:
    """All frames of the training videos in one tensor, with what each of them shows."""

    def __init__(self, videos: list[Video]) -> None:
        self.frames: Tensor = torch.cat([video.frames for video in videos])
        self.sightings: list[Sighting] = []
        self.shown: list[tuple[int, ...]] = []
        self.videos: list[range] = []
        for video in videos:
            start, base = len(self.shown), len(self.sightings)
            self.sightings += video.sightings
            self.shown += [tuple(base + index for index in indices) for indices in video.visible()]
            self.videos.append(range(start, len(self.shown)))
        self.video_of = [video for video in self.videos for _ in video]
        self.empty = [frame for frame, indices in enumerate(self.shown) if not indices]
        self.scenes = self.find_scenes()
        self.scenes_of: dict[int, list[Scene]] = {}
        for scene in self.scenes:
            for pair in {pair_index(self.sightings[index]) for index in scene.sightings}:
                self.scenes_of.setdefault(pair, []).append(scene)
        self.truth = torch.zeros(len(self.shown), len(PLACES), len(SHAPES) * len(COLORS), dtype=torch.uint8)
        for frame, indices in enumerate(self.shown):
            for index in indices:
                thing = self.sightings[index]
                self.truth[frame, PLACES.index(thing.place), pair_index(thing)] = 1

    def find_scenes(self) -> list[Scene]:
        scenes: list[Scene] = []
        for video in self.videos:
            frame = video.start
            while frame < video.stop:
                stop = frame + 1
                while stop < video.stop and self.shown[stop] == self.shown[frame]:
                    stop += 1
                if self.shown[frame]:
                    scenes.append(Scene(frame, stop, self.shown[frame]))
                frame = stop
        return scenes


def pair_index(thing: Sighting | Stay) -> int:
    return SHAPES.index(thing.shape) * len(COLORS) + COLORS.index(thing.color)


def cut_contiguous(library: Library, length: int, draw: random.Random) -> list[range]:
    video = draw.choice([video for video in library.videos if len(video) >= length])
    start = video.start + draw.randint(0, len(video) - length)
    return [range(start, start + length)]


def splice(library: Library, length: int, draw: random.Random) -> list[range]:
    """Disjoint segments, a scene and its surroundings each, length frames together; empty frames fill the rest."""
    shapes_in = draw.sample(SHAPES, draw.choice(FAMILY))
    colors_in = draw.sample(COLORS, draw.choice(FAMILY))
    again = library.scenes_of[draw.choice(sorted(library.scenes_of))]
    returns = draw.randint(0, RETURNS_MAX)
    segments: list[range] = []
    used: set[int] = set()
    room = length
    while room > 0:
        scene = draw.choice(again if len(segments) < returns else library.scenes)
        things = [library.sightings[index] for index in scene.sightings]
        alike = any(thing.shape in shapes_in and thing.color in colors_in for thing in things)
        if len(segments) >= returns and not alike and draw.random() < 0.9:
            continue
        video = library.video_of[scene.start]
        start = max(video.start, scene.start - draw.choice((1, 1, 1, 2, 3)))
        segment = range(start, min(video.stop, scene.stop + draw.choice((0, 0, 1, 2))))
        if len(segment) > room:
            empty = draw.choice(library.empty)
            segment = range(empty, empty + 1)
        if used.isdisjoint(segment):
            used.update(segment)
            segments.append(segment)
            room -= len(segment)
    draw.shuffle(segments)
    return segments


def make_clip(library: Library, length: int, contiguous: float, draw: random.Random) -> Clip:
    """A clip of exactly length frames; contiguous is the share of plain cuts."""
    cut = cut_contiguous if draw.random() < contiguous else splice
    frames: list[int] = []
    stays: list[Stay] = []
    mirrored = draw.random() < 0.5
    for segment in cut(library, length, draw):
        found: dict[int, tuple[int, int]] = {}
        for frame in segment:
            for index in library.shown[frame]:
                first, _ = found.get(index, (len(frames), 0))
                found[index] = first, len(frames)
            frames.append(frame)
        for index, (first, last) in found.items():
            thing = library.sightings[index]
            place = MIRRORED.get(thing.place, thing.place) if mirrored else thing.place
            stays.append(Stay(thing.shape, thing.color, place, first, last))
    return Clip(frames, stays, mirrored)
