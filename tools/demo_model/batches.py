"""Batches for training: pictures, questions with their answers, and what each question may see and should find."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from clips import MIRRORED, Clip, Library, make_clip
from config import ModelConfig, TrainConfig
from data import pixels
from questions import COLORS, PLACES, SHAPES, Asked, ask_about
from selection import in_time_order, newest, pad
from tokenizer import Prompts

MIRROR_PLACES = [PLACES.index(MIRRORED.get(place, place)) for place in PLACES]


def vary(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Small changes of brightness, contrast, colour balance and grain, as another decoder or camera would make."""
    count = len(frames)
    gain = 1 + 0.16 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    balance = 0.06 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    offset = 0.16 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    grain = 0.03 * torch.randn(frames.shape, generator=generator)
    return frames * gain + balance + offset + grain


@dataclass
class Batch:
    """Clips and the questions on them; F = clips x frames, Q questions over all clips.

    allowed [Q, F] frames of the question's clip up to its moment; wanted [Q, F] frames of any clip that show what is
    asked about; prompt holds question, answer and end as one row, labels the answer's part of it.
    """

    clip_frames: int
    pixels: Tensor
    truth: Tensor
    raw: Tensor
    raw_valid: Tensor
    prompt: Tensor
    labels: Tensor
    allowed: Tensor
    wanted: Tensor
    kinds: list[str]


def make_batch(library: Library, prompts: Prompts, cfg: TrainConfig, seed: int) -> Batch:
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    length = draw.choice(cfg.clip_frames)
    count = max(1, cfg.batch_frames // length)
    clips: list[Clip] = []
    asked: list[tuple[int, Asked]] = []
    while not asked or len(clips) < count:
        clip = make_clip(library, length, cfg.contiguous_share, draw)
        asked += [(len(clips), one) for one in ask_about(clip.stays, length, cfg.batch_questions // count, draw)]
        clips.append(clip)
    index = torch.tensor([clip.frames for clip in clips])
    seen = pixels(library.frames[index.flatten()]).unflatten(0, index.shape)
    truth = library.truth[index].float()
    for at, clip in enumerate(clips):
        if clip.mirrored:
            seen[at] = seen[at].flip(-1)
            truth[at] = truth[at][:, MIRROR_PLACES]

    raw, raw_valid = pad([prompts.ids(one.text) for _, one in asked], 0)
    rows = [(prompts.answer_prompt(one.text), prompts.answer(one.answer)) for _, one in asked]
    prompt, _ = pad([question + answer for question, answer in rows], 0)
    labels, _ = pad([[-100] * len(question) + answer for question, answer in rows], -100)
    owner = torch.arange(len(clips)).repeat_interleave(length)
    moment = torch.arange(length).repeat(len(clips))
    clip_of = torch.tensor([clip for clip, _ in asked])[:, None]
    as_of = torch.tensor([one.as_of for _, one in asked])[:, None]
    return Batch(
        clip_frames=length,
        pixels=vary(seen.flatten(0, 1), generator),
        truth=truth.flatten(0, 1),
        raw=raw,
        raw_valid=raw_valid,
        prompt=prompt,
        labels=labels,
        allowed=(owner[None] == clip_of) & (moment[None] <= as_of),
        wanted=wanted_frames(truth.flatten(0, 1), [one for _, one in asked]),
        kinds=[one.kind for _, one in asked],
    )


def wanted_frames(truth: Tensor, asked: list[Asked]) -> Tensor:
    """truth [F, places, pairs] -> which frames show what a question wants: [Q, F]."""
    masks = torch.zeros(len(asked), len(PLACES), len(SHAPES), len(COLORS))
    for row, one in enumerate(asked):
        for want in one.wanted:
            place = slice(None) if want.place is None else PLACES.index(want.place)
            shape = slice(None) if want.shape is None else SHAPES.index(want.shape)
            color = slice(None) if want.color is None else COLORS.index(want.color)
            masks[row, place, shape, color] = 1
    return masks.flatten(1) @ truth.flatten(1).T > 0


class Teacher:
    """Replaces some questions' choices by frames that hold the evidence, filled up at random.

    Early in training a layer's own choice is chance, and an answer cannot be learnt from frames that do not show it.
    """

    def __init__(self, batch: Batch, share: float, cfg: ModelConfig, generator: torch.Generator) -> None:
        self.batch = batch
        self.cfg = cfg
        self.generator = generator
        self.taught = torch.rand(len(batch.kinds), generator=generator) < share

    def __call__(self, choice: Tensor) -> Tensor:
        allowed, wanted = self.batch.allowed, self.batch.wanted
        rank = torch.rand(allowed.shape, generator=self.generator) + (wanted & allowed)
        best = rank.masked_fill(~allowed, -1.0).topk(min(self.cfg.retrieved_frames, allowed.shape[1]), 1).indices
        chosen = newest(allowed, self.cfg.recent_frames).scatter(1, best, True) & allowed
        return torch.where(self.taught[:, None], in_time_order(chosen, choice.shape[1]), choice)
