"""Scores a checkpoint as the system would use it: streaming encode, per-layer retrieval, two passes, greedy answers.

Every selector answers every question; the table says, per kind, how often the answer equals the truth. `python
tools/demo_model/evaluate.py --model models/reelkv-demo --videos DIR` prints it.
"""

import argparse
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from config import ModelConfig
from data import Video, load_video, pixels
from export import load_exported
from model import Context, DemoModel, Memory, Window
from selection import Retrieval, in_time_order, newest, pad
from tokenizer import Prompts

SELECTORS = ("rekv", "oracle", "uniform", "random", "recent", "blind", "all")
ANSWER_TOKENS_MAX = 8
ALL_FRAMES_MAX = 500


@dataclass
class Tally:
    """Right and asked, per (selector, kind), and what retrieval found."""

    right: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    asked: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    recall_sum: list[float] = field(default_factory=list)
    recall_asked: int = 0
    random_recall: float = 0.0
    false_yes: int = 0
    truly_no: int = 0
    wrong: list[str] = field(default_factory=list)


@torch.no_grad()
def encode_stream(model: DemoModel, frames: Tensor, chunk: int = 32) -> Memory:
    """Watches a whole stream, chunk frames at a time; frames uint8 [T, S, S, 3]."""
    parts: list[Memory] = []
    window: Window | None = None
    for start in range(0, len(frames), chunk):
        tokens = model.see(pixels(frames[start : start + chunk]))
        memory, window = model.watch(tokens[None], window)
        parts.append(memory)
    layers = range(model.cfg.text.layers)
    return Memory(
        parts[0].init_k,
        parts[0].init_v,
        [torch.cat([part.frame_k[layer] for part in parts]) for layer in layers],
        [torch.cat([part.frame_v[layer] for part in parts]) for layer in layers],
    )


@torch.no_grad()
def greedy(model: DemoModel, prompts: list[list[int]], contexts: list[Context], eos: int) -> list[list[int]]:
    """Answers to a batch of prompts over the context each layer was given."""
    rows = [list(prompt) for prompt in prompts]
    done = [False] * len(rows)
    for _ in range(ANSWER_TOKENS_MAX):
        ids, valid = pad(rows, 0)
        logits = model.attend(ids, lambda layer, q: contexts[layer])
        last = logits[torch.arange(len(rows)), valid.sum(1) - 1].argmax(-1).tolist()
        for row, token in enumerate(last):
            if not done[row]:
                rows[row].append(token)
                done[row] = token == eos
        if all(done):
            break
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts)]


def control(name: str, allowed: Tensor, evidence: Tensor, cfg: ModelConfig, draw: random.Random) -> Tensor:
    """The frames a control reads, the same in every layer: allowed, evidence [Q, F] -> [Q, S]."""
    count = cfg.retrieved_frames
    recent = newest(allowed, cfg.recent_frames)
    chosen = torch.zeros_like(allowed)
    if name == "recent":
        return in_time_order(newest(allowed, cfg.window_frames), cfg.window_frames)
    if name == "blind":
        return torch.zeros(len(allowed), 0, dtype=torch.long)
    if name == "all":
        return in_time_order(newest(allowed, ALL_FRAMES_MAX), int(min(ALL_FRAMES_MAX, allowed.sum(1).max())))
    for row in range(len(allowed)):
        frames = allowed[row].nonzero()[:, 0].tolist()
        if name == "uniform":
            picks = [frames[(2 * slot + 1) * len(frames) // (2 * count)] for slot in range(count)]
        elif name == "random":
            picks = draw.sample(frames, min(count, len(frames)))
        else:
            named = evidence[row].nonzero()[:, 0].tolist()
            picks = [named[slot * len(named) // count] for slot in range(count)] if len(named) > count else named
        chosen[row, picks] = True
    return in_time_order(chosen | recent, count + cfg.recent_frames)


def ask(
    model: DemoModel, prompts: Prompts, video: Video, memory: Memory, tally: Tally, selectors: tuple[str, ...]
) -> None:
    """Puts every question of one stream to every selector."""
    questions = video.questions
    raw, valid = pad([prompts.ids(question.text) for question in questions], 0)
    allowed = torch.stack([video.times <= question.as_of for question in questions])
    evidence = torch.stack([video.evidence(question) for question in questions])
    draw = random.Random(video.seed)
    for name in selectors:
        if name == "rekv":
            retrieval = Retrieval(model, memory, valid, allowed)
            with torch.no_grad():
                contexts = retrieval.run(raw)
            count_recall(tally, retrieval.choices, evidence, allowed, model.cfg)
        else:
            choice = control(name, allowed, evidence, model.cfg, draw)
            contexts = [model.context(memory, layer, choice) for layer in range(model.cfg.text.layers)]
        answers = greedy(model, [prompts.answer_prompt(q.text) for q in questions], contexts, prompts.eos)
        for question, ids in zip(questions, answers):
            said = prompts.text(ids)
            right = said == question.answer
            for kind in (question.kind, "together"):
                tally.asked[name, kind] += 1
                tally.right[name, kind] += right
            if name == "rekv" and question.kind == "did" and question.answer == "no":
                tally.truly_no += 1
                tally.false_yes += said == "yes"
            if name == "rekv" and not right:
                tally.wrong.append(
                    f"{video.seed} {question.kind}: {question.text} -> {said!r}, truth {question.answer!r}"
                )


def count_recall(tally: Tally, choices: list[Tensor], evidence: Tensor, allowed: Tensor, cfg: ModelConfig) -> None:
    """Share of questions about the past with at least one evidence frame among a layer's choice, summed per layer.

    Questions whose evidence the recent window holds anyway, and those without evidence, say nothing of retrieval.
    """
    counted = evidence.any(1) & ~(evidence & newest(allowed, cfg.recent_frames)).any(1)
    tally.recall_asked += int(counted.sum())
    if not tally.recall_sum:
        tally.recall_sum = [0.0] * len(choices)
    for layer, choice in enumerate(choices):
        found = (evidence.gather(1, choice.clamp(min=0)) & (choice >= 0)).any(1)
        tally.recall_sum[layer] += float((found & counted).sum())
    total, named = allowed.sum(1).double(), (evidence & allowed).sum(1).double()
    miss = torch.ones_like(total)
    for draw in range(cfg.retrieved_frames):
        miss *= ((total - named - draw) / (total - draw)).clamp(min=0)
    tally.random_recall += float(((1 - miss) * counted).sum())


def report(tally: Tally, selectors: tuple[str, ...]) -> str:
    """The score table as text."""
    kinds = sorted({kind for _, kind in tally.asked if kind != "together"}) + ["together"]
    lines = ["selector  " + "".join(f"{kind:>10}" for kind in kinds)]
    for name in selectors:
        cells = [tally.right[name, kind] / max(1, tally.asked[name, kind]) for kind in kinds]
        lines.append(f"{name:<10}" + "".join(f"{100 * cell:>9.1f}%" for cell in cells))
    lines.append("questions " + "".join(f"{tally.asked[selectors[0], kind]:>10}" for kind in kinds))
    if tally.recall_asked:
        shares = [found / tally.recall_asked for found in tally.recall_sum]
        lines.append(
            f"evidence among the retrieved: mean {100 * sum(shares) / len(shares):.1f} % "
            + f"of {tally.recall_asked} questions; "
            + "per layer "
            + " ".join(f"{100 * share:.1f}" for share in shares)
            + f"; random frames {100 * tally.random_recall / tally.recall_asked:.1f} %"
        )
    if tally.truly_no:
        lines.append(
            f"false yes: {tally.false_yes} of {tally.truly_no} ({100 * tally.false_yes / tally.truly_no:.1f} %)"
        )
    return "\n".join(lines)


def evaluate(model: DemoModel, prompts: Prompts, videos: list[Video], selectors: tuple[str, ...] = SELECTORS) -> Tally:
    model.eval()
    tally = Tally()
    for video in videos:
        ask(model, prompts, video, encode_stream(model, video.frames), tally, selectors)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="exported checkpoint folder")
    parser.add_argument("--videos", type=Path, required=True, help="folder of prepared truth-camera videos")
    parser.add_argument("--limit", type=int, default=1000, help="at most so many videos")
    parser.add_argument("--wrong", action="store_true", help="list the questions retrieval got wrong")
    parser.add_argument("--selectors", default=",".join(SELECTORS), help="comma-separated")
    options = parser.parse_args()
    model, prompts = load_exported(options.model)
    folders = sorted(path for path in options.videos.iterdir() if path.is_dir())[: options.limit]
    names = tuple(options.selectors.split(","))
    tally = evaluate(model, prompts, [load_video(folder) for folder in folders], names)
    print(report(tally, names))
    if options.wrong:
        print("\n".join(tally.wrong))


if __name__ == "__main__":
    main()
