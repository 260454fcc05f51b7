"""Batches for training: pictures, questions with their answers, and what each question may see and should find."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from clips import MIRRORED, Clip, Library, make_clip
from config import ModelConfig, TrainConfig
from data import pixels
from losses import PLACE_CENTRES
from questions import COLORS, PLACES, SHAPES, Asked, Wanted, ask_about
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
    """Clips and the questions on them; F = clips x frames, Q questions over all clips, P tokens a frame.

    arrived [F, P] tokens where something has come in with this very frame; allowed [Q, F] frames of the question's
    clip up to its moment; wanted [Q, F] frames of any clip that show what is asked about, wanted_tokens [Q, F x P]
    the tokens that show it, read_tokens those its answer is read from, told_tokens those that show what it tells of;
    counted [Q] questions after how often that was; prompt holds question, answer and end as one row, labels the
    answer's part of it.
    """

    clip_frames: int
    pixels: Tensor
    truth: Tensor
    arrived: Tensor
    raw: Tensor
    raw_valid: Tensor
    prompt: Tensor
    labels: Tensor
    allowed: Tensor
    wanted: Tensor
    wanted_tokens: Tensor
    read_tokens: Tensor
    told_tokens: Tensor
    counted: Tensor
    kinds: list[str]


def make_batch(
    library: Library, prompts: Prompts, cfg: TrainConfig, grid: int, draw: random.Random, length: int
) -> Batch:
    """A batch of clips of one length; grid is the side of a frame's square of tokens."""
    generator = torch.Generator().manual_seed(draw.getrandbits(62))
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
    at = wanted_places(truth.flatten(0, 1), [one.wanted for _, one in asked])
    told_at = wanted_places(truth.flatten(0, 1), [one.wanted[:1] for _, one in asked])
    owner = torch.arange(len(clips)).repeat_interleave(length)
    moment = torch.arange(length).repeat(len(clips))
    clip_of = torch.tensor([clip for clip, _ in asked])[:, None]
    as_of = torch.tensor([one.as_of for _, one in asked])[:, None]
    return Batch(
        clip_frames=length,
        pixels=vary(seen.flatten(0, 1), generator),
        truth=truth.flatten(0, 1),
        arrived=arrivals(truth, grid),
        raw=raw,
        raw_valid=raw_valid,
        prompt=prompt,
        labels=labels,
        allowed=(owner[None] == clip_of) & (moment[None] <= as_of),
        wanted=at.any(2),
        wanted_tokens=tokens_at(at, grid),
        read_tokens=read_from(at, [one.read for _, one in asked], truth.flatten(0, 1), grid),
        told_tokens=tokens_at(told_at, grid),
        counted=torch.tensor([one.read == "tally" for _, one in asked]),
        kinds=[one.kind for _, one in asked],
    )


def wanted_places(truth: Tensor, wanted: list[tuple[Wanted, ...]]) -> Tensor:
    """truth [F, places, pairs] -> where which frames show what a question wants: [Q, F, places]."""
    masks = torch.zeros(len(wanted), len(PLACES), len(SHAPES), len(COLORS))
    for row, wants in enumerate(wanted):
        for want in wants:
            place = slice(None) if want.place is None else PLACES.index(want.place)
            shape = slice(None) if want.shape is None else SHAPES.index(want.shape)
            color = slice(None) if want.color is None else COLORS.index(want.color)
            masks[row, place, shape, color] = 1
    return torch.einsum("qzp,fzp->qfz", masks.flatten(2), truth) > 0


def tokens_at(places: Tensor, grid: int) -> Tensor:
    """places [Q, F, places] -> the tokens that lie there: [Q, F x P]."""
    return (torch.einsum("qfz,zt->qft", places.float(), place_tokens(grid).float()) > 0).flatten(1)


def arrivals(truth: Tensor, grid: int) -> Tensor:
    """truth [C, T, places, pairs] of clips -> the tokens [C x T, P] where a frame shows what the one before did not."""
    before = torch.cat([torch.zeros_like(truth[:, :1]), truth[:, :-1]], 1)
    places = ((truth > 0) & (before == 0)).any(3).flatten(0, 1)
    return (places.float() @ place_tokens(grid).float()).clamp(max=1)


def read_from(at: Tensor, read: list[str], truth: Tensor, grid: int) -> Tensor:
    """Where answers are read, [Q, F x P]: at what is wanted at [Q, F, places], or at all in frames that show it."""
    shown = truth.amax(2) @ place_tokens(grid).float() > 0
    company = (at.any(2)[:, :, None] & shown).flatten(1)
    in_company = torch.tensor([one == "company" for one in read])[:, None]
    return torch.where(in_company, company, tokens_at(at, grid))


def place_tokens(grid: int) -> Tensor:
    """The tokens an object at a place covers, as a mask [places, grid * grid]: those around the place's centre."""
    centres = torch.tensor([PLACE_CENTRES[place] for place in PLACES]) * grid - 0.5
    near = (torch.arange(grid)[None, None] - centres[:, :, None]).abs() < 1
    across, down = near[:, 0], near[:, 1]
    return (down[:, :, None] & across[:, None, :]).flatten(1)


class Teacher:
    """Replaces some questions' choices by the frames that hold the evidence and a few others.

    Early in training a layer's own choice is chance, and an answer cannot be learnt from frames that do not show it;
    nor is it learnt soon from many frames at once, so most taught contexts are short.
    """

    def __init__(self, batch: Batch, share: float, cfg: ModelConfig, generator: torch.Generator) -> None:
        self.batch = batch
        self.cfg = cfg
        self.generator = generator
        self.taught = torch.rand(len(batch.kinds), generator=generator) < share
        others = cfg.retrieved_frames * torch.rand(len(batch.kinds), generator=generator) ** 2
        self.frames = (batch.wanted & batch.allowed).sum(1) + others.long()

    def __call__(self, choice: Tensor) -> Tensor:
        allowed, wanted = self.batch.allowed, self.batch.wanted
        rank = torch.rand(allowed.shape, generator=self.generator) + (wanted & allowed)
        slots = min(self.cfg.retrieved_frames, allowed.shape[1])
        best = rank.masked_fill(~allowed, -1.0).topk(slots, 1).indices
        kept = torch.arange(slots)[None] < self.frames[:, None]
        chosen = newest(allowed, self.cfg.recent_frames)
        chosen = chosen | torch.zeros_like(allowed).scatter(1, best, kept)
        return torch.where(self.taught[:, None], in_time_order(chosen & allowed, choice.shape[1]), choice)
