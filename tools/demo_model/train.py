"""Trains the demo model from nothing: `python tools/demo_model/train.py --work DIR --truthcam BINARY --out DIR`.

Four steps, each resumed where an earlier run left it: videos (made, encoded to H.264, decoded, cached), the vision
tower on single frames, the whole model on clips and questions, export. Every step of training draws from a seed of
its own, so a resumed run goes on as an uninterrupted one would.
"""

import argparse
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, distributed, multiprocessing, nn

from batches import MIRROR_PLACES, Batch, Teacher, make_batch, vary
from clips import Library
from config import ModelConfig, TrainConfig
from data import TRAIN_SEED_FIRST, Shoot, Video, load_video, pixels, prepare_videos, vocabulary
from evaluate import evaluate, report
from export import compare_with_transformers, export_model, load_exported
from losses import (
    SCORE_SCALE,
    ArrivalHead,
    Pointer,
    SightHead,
    answer_loss,
    ranking_loss,
    sight_loss,
    tally_loss,
    wanted_in_context,
)
from model import DemoModel
from questions import COLORS, SHAPES, every_text
from selection import Retrieval
from tokenizer import Prompts, train_tokenizer

SCORE_SEED_FIRST = 5000


class Meter:
    """Means of named figures since the last line."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        self.sums[name] += value * weight
        self.counts[name] += weight

    def line(self) -> str:
        return " ".join(f"{name} {self.sums[name] / self.counts[name]:.3f}" for name in self.sums if self.counts[name])


@dataclass(frozen=True)
class Stage:
    """A stretch of training: what is trained (all of it goes into the checkpoint), how long, how fast, on what loss."""

    parts: dict[str, nn.Module]
    steps: int
    rate: float
    take: Callable[[int], Tensor]


class Trainer:
    """The model, its training-only heads, and the loop both stages share."""

    def __init__(self, model: DemoModel, prompts: Prompts, library: Library, cfg: TrainConfig, work: Path) -> None:
        self.rank = distributed.get_rank()
        self.model = model
        self.prompts = prompts
        self.library = library
        self.cfg = cfg
        self.work = work
        text = model.cfg.text
        self.head = SightHead(text.hidden, model.cfg.pooled_grid, len(SHAPES) * len(COLORS))
        self.arrival = ArrivalHead(text.layers, text.kv_heads * text.head_dim)
        self.meter = Meter()
        self.full_frames = torch.tensor([frame for scene in library.scenes for frame in range(scene.start, scene.stop)])

    def draw_seed(self, salt: int, step: int) -> int:
        """A seed of its own for every use, step and worker."""
        return self.cfg.seed * salt + step * self.cfg.workers + self.rank

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Every worker goes on with the mean of all workers' gradients; a parameter one has not used counts as 0."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        distributed.all_reduce(flat)
        flat /= self.cfg.workers
        for parameter, mean in zip(parameters, flat.split([parameter.numel() for parameter in parameters])):
            parameter.grad.copy_(mean.view_as(parameter))

    # -- stage 1: what does a single frame show? -----------------------------------------------------------------------

    def see_step(self, step: int) -> Tensor:
        cfg, library = self.cfg, self.library
        generator = torch.Generator().manual_seed(self.draw_seed(7_919, step))
        full = cfg.see_batch * 3 // 4
        index = torch.cat(
            [
                self.full_frames[torch.randint(len(self.full_frames), (full,), generator=generator)],
                torch.randint(len(library.shown), (cfg.see_batch - full,), generator=generator),
            ]
        )
        seen, truth = pixels(library.frames[index]), library.truth[index].float()
        mirror = torch.rand(len(index), generator=generator) < 0.5
        seen = torch.where(mirror[:, None, None, None], seen.flip(-1), seen)
        truth = torch.where(mirror[:, None, None], truth[:, MIRROR_PLACES], truth)
        tokens = self.model.see(vary(seen, generator))
        around, overall, own = self.head(tokens)
        for name, logits in (("around", around), ("overall", overall)):
            exact = ((logits > 0) == (truth > 0)).flatten(1).all(1)[:full]
            self.meter.add(name, exact.float().mean().item())
        loss = sight_loss(around, overall, own, truth)
        self.meter.add("loss", loss.item())
        return loss

    def clip_length(self, step: int, draw: random.Random) -> int:
        """The frames of this step's clips: short streams first, reading is learnt sooner from few frames."""
        for until, lengths in self.cfg.clip_frames:
            if step < until:
                return draw.choice(lengths)
        raise ValueError("TrainConfig.clip_frames must reach answer_steps")

    # -- stage 2: watch, retrieve, answer; the tower stays as stage 1 left it ------------------------------------------

    def answer_step(self, step: int) -> Tensor:
        cfg, model = self.cfg, self.model
        draw = random.Random(self.draw_seed(1_000_003, step))
        batch = make_batch(self.library, self.prompts, cfg, model.cfg.pooled_grid, draw, self.clip_length(step, draw))
        generator = torch.Generator().manual_seed(self.draw_seed(15_485_863, step))
        teacher = Teacher(batch, max(cfg.taught_share, 1.0 - step / cfg.taught_until), model.cfg, generator)
        with torch.no_grad():
            features = model.vision_tower(batch.pixels)
        tokens = model.project(features)
        memory, _ = model.watch(tokens.unflatten(0, (-1, batch.clip_frames)))
        retrieval = Retrieval(model, memory, batch.raw_valid, batch.allowed, teacher)
        contexts = retrieval.run(batch.raw)
        pointer = Pointer(batch.labels)
        logits = model.attend(batch.prompt, lambda layer, q: contexts[layer], pointer.watch)
        answers = answer_loss(logits, batch.labels)
        ranked = ranking_loss(
            [score / SCORE_SCALE for score in retrieval.scores], [batch.wanted] * len(retrieval.scores)
        )
        token_keys = [keys.float().transpose(1, 2).flatten(0, 1).flatten(1) for keys in memory.frame_k]
        token_scores = [query @ keys.T / SCORE_SCALE for query, keys in zip(retrieval.queries, token_keys)]
        n_init = len(model.init_ids)
        read = batch.read_tokens.unflatten(1, (-1, model.cfg.frame_tokens))
        told = batch.told_tokens.unflatten(1, (-1, model.cfg.frame_tokens))
        pointed = ranking_loss(token_scores, [batch.wanted_tokens] * len(token_scores))
        sought = [
            pointer.wanted(wanted_in_context(read, choice, n_init), wanted_in_context(told, choice, n_init))
            for choice in retrieval.choices[1:]
        ]
        in_context = [look[:, :, : found.shape[1]].mean(1) for look, found in zip(pointer.looks, sought)]
        counts = (batch.counted[pointer.rows] & ~pointer.has_begun)[:, None]
        looked = ranking_loss(in_context, [found & ~counts for found in sought])
        tallied = tally_loss(pointer.looks, [found & counts for found in sought], n_init)
        self.measure(batch, logits, retrieval.choices)
        self.meter.add("answer", answers.item())
        self.meter.add("retrieve", ranked.item())
        self.meter.add("point", pointed.item())
        self.meter.add("look", looked.item())
        self.meter.add("tally", tallied.item())
        arrived = self.arrival.loss(memory.frame_v, batch.arrived)
        self.meter.add("arrive", arrived.item())
        loss = answers + cfg.retrieval_weight * ranked + cfg.pointing_weight * (pointed + looked)
        loss = loss + cfg.tally_weight * (tallied + arrived)
        return loss + cfg.see_weight * sight_loss(*self.head(tokens), batch.truth)

    @torch.no_grad()
    def measure(self, batch: Batch, logits: Tensor, choices: list[Tensor]) -> None:
        labels = batch.labels[:, 1:]
        right = ((logits[:, :-1].argmax(-1) == labels) | (labels < 0)).all(1)
        for kind, ok in zip(batch.kinds, right.tolist()):
            self.meter.add(kind, ok)
        evidence = batch.wanted & batch.allowed
        asked = evidence.any(1)
        for choice in choices:
            hit = (evidence.gather(1, choice.clamp(min=0)) & (choice >= 0)).any(1)[asked].float()
            self.meter.add("hit", hit.mean().item() if len(hit) else 1.0)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, name: str, stage: Stage, scored: Callable[[int], None]) -> None:
        """Trains for the stage's steps, or what is left of them; saves and scores at fixed steps."""
        cfg, steps = self.cfg, stage.steps
        parameters = [one for part in stage.parts.values() for one in part.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(parameters, stage.rate, (0.9, 0.98), weight_decay=cfg.weight_decay, foreach=True)
        path = self.work / f"{name}.pt"
        start = restore(path, stage.parts, optimizer)
        began = time.monotonic()
        self.model.train()
        for step in range(start, steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.rate * learning_share(step, steps, cfg)
            optimizer.zero_grad()
            stage.take(step).backward()
            self.average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, cfg.clip_norm)
            optimizer.step()
            done = step + 1
            if self.rank:
                continue
            if done % 50 == 0 or done == steps:
                pace = (time.monotonic() - began) / (done - start)
                left = (steps - done) * pace / 60
                print(
                    f"{name} {done}/{steps} {1000 * pace:.0f} ms, {left:.0f} min left: {self.meter.line()}", flush=True
                )
                self.meter = Meter()
            if done % cfg.save_every == 0 or done == steps:
                save(path, stage.parts, optimizer, done)
            if done % cfg.score_every == 0 or done == steps:
                scored(done)


def save(path: Path, parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes a checkpoint to go on from; one that is there already stays whole until this one is."""
    state = {name: part.state_dict() for name, part in parts.items()}
    written = path.with_suffix(".part")
    torch.save({**state, "optimizer": optimizer.state_dict(), "step": step}, written)
    os.replace(written, path)


def restore(path: Path, parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> int:
    """The step to go on from: 0 when this stage has not begun."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    optimizer.load_state_dict(state["optimizer"])
    print(f"{path.name}: going on from step {state['step']}", flush=True)
    return int(state["step"])


def learning_share(step: int, steps: int, cfg: TrainConfig) -> float:
    """Warm-up, flat, then half a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / cfg.warm_steps)
    down = max(0.0, (step / steps - cfg.flat_share) / (1 - cfg.flat_share))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * down)))


def prepare_tokenizer(texts: list[str], work: Path, cfg: ModelConfig) -> Tokenizer:
    """The tokeniser of this work folder; trained when there is none yet."""
    path = work / "tokenizer.json"
    if not path.is_file():
        train_tokenizer(texts, cfg.text.vocab).save(str(path))
    return Tokenizer.from_file(str(path))


def check_wordings(known: list[str]) -> None:
    """Training must ask in the camera tool's words; a new wording there has to be brought here."""
    unknown = set(every_text(random.Random(0), 400)) - set(known)
    singles = {text for text in unknown if " or the " not in text}  # the tool lists a sample of the pairs only
    if singles:
        raise ValueError(f"truthcam --vocabulary lacks {sorted(singles)[:3]}; bring questions.py in line with it")


def train(rank: int, options: argparse.Namespace, known: list[str], cfg: TrainConfig) -> None:
    """One worker: both stages, and, in the first one, what is printed, saved and exported."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # confident softmaxes are full of them, and each costs a hundred ordinary numbers
    torch.manual_seed(cfg.seed)
    meeting = f"file://{(options.work / 'workers').absolute()}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=cfg.workers)
    shape = ModelConfig()
    library = Library([load_video(path) for path in sorted((options.work / "train").iterdir())])
    videos = [load_video(path) for path in sorted((options.work / "score").iterdir())]
    tokenizer = prepare_tokenizer(known, options.work, shape)
    prompts = Prompts(tokenizer)
    trainer = Trainer(DemoModel(shape, prompts.init_ids), prompts, library, cfg, options.work)

    def score(step: int) -> None:
        export_model(trainer.model, tokenizer, options.out)
        show_score(options.out, videos, step)
        trainer.model.train()

    seeing: dict[str, nn.Module] = {"model": trainer.model, "head": trainer.head}
    trainer.run("see", Stage(seeing, cfg.see_steps, cfg.see_rate, trainer.see_step), lambda step: None)
    trainer.model.vision_tower.requires_grad_(False)
    answering = seeing | {"arrival": trainer.arrival}
    trainer.run("answer", Stage(answering, cfg.answer_steps, cfg.answer_rate, trainer.answer_step), score)
    if rank == 0:
        export_model(trainer.model, tokenizer, options.out)
        model, prompts = load_exported(options.out)
        frames = pixels(videos[0].frames[:8])
        print(compare_with_transformers(model, options.out, frames, prompts.ids(videos[0].questions[0].text)))
    distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for videos and checkpoints (about 2 GB)")
    parser.add_argument("--truthcam", type=Path, required=True, help="the built truthcam binary")
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint folder goes")
    options = parser.parse_args()
    cfg, shape = TrainConfig(), ModelConfig()
    known = vocabulary(options.truthcam)
    check_wordings(known)
    options.work.mkdir(parents=True, exist_ok=True)
    size = shape.vision.image_size
    seeds = range(TRAIN_SEED_FIRST, TRAIN_SEED_FIRST + cfg.train_videos)
    prepare_videos(options.truthcam, Shoot(seeds, cfg.video_seconds, "demo", 0), options.work / "train", size)
    seeds = range(SCORE_SEED_FIRST, SCORE_SEED_FIRST + cfg.score_videos)
    prepare_videos(options.truthcam, Shoot(seeds, cfg.video_seconds, "score", 70), options.work / "score", size)
    prepare_tokenizer(known, options.work, shape)
    (options.work / "workers").unlink(missing_ok=True)
    multiprocessing.spawn(train, (options, known, cfg), nprocs=cfg.workers)


def show_score(folder: Path, videos: list[Video], step: int) -> None:
    selectors = ("rekv", "oracle")
    model, prompts = load_exported(folder)
    print(f"score at step {step}\n{report(evaluate(model, prompts, videos, selectors), selectors)}", flush=True)


if __name__ == "__main__":
    main()
