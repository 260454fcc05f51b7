"""Which frames a question reads: ReKV's per-layer choice by score, and the controls it is measured against.

A choice is a tensor [Q, S] of frame indices in time order with -1 in empty slots, empty slots first: what
DemoModel.context takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model import Context, DemoModel, Memory, mean_query


def newest(allowed: Tensor, count: int) -> Tensor:
    """The newest count allowed frames of every question, as a mask: allowed [Q, F] in time order."""
    from_end = allowed.long().flip(1).cumsum(1).flip(1)
    return allowed & (from_end <= count)


def in_time_order(chosen: Tensor, slots: int) -> Tensor:
    """Mask [Q, F] with at most slots ones a row -> indices [Q, slots], ascending, -1 first where fewer."""
    index = torch.arange(chosen.shape[1])
    ranked = torch.where(chosen, index, -1)
    width = min(slots, chosen.shape[1])
    found = ranked.topk(width, 1).values.flip(1)
    return torch.cat([torch.full((len(chosen), slots - width), -1), found], 1)


def top_frames(scores: Tensor, allowed: Tensor, recent: Tensor, count: int) -> Tensor:
    """The count best allowed frames and the recent ones: scores, allowed, recent [Q, F] -> [Q, count + recent]."""
    chosen = recent.clone()
    best = scores.masked_fill(~allowed, -torch.inf).topk(min(count, scores.shape[1]), 1).indices
    chosen.scatter_(1, best, True)
    return in_time_order(chosen & allowed, count + int(recent.sum(1).max()))


@dataclass
class Retrieval:
    """A retrieval pass over a memory: keeps every layer's query, scores, choice and context.

    tokens [Q, n] are the raw questions, right padded; valid [Q, n] marks their tokens; allowed [Q, F] the frames a
    question may see. override, where given, turns a layer's own choice into the one that is used.
    """

    model: DemoModel
    memory: Memory
    valid: Tensor
    allowed: Tensor
    override: Callable[[Tensor], Tensor] | None = None
    queries: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    choices: list[Tensor] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)

    def choose(self, layer: int, q: Tensor) -> Context:
        cfg = self.model.cfg
        query = mean_query(q, self.valid, cfg.text.kv_heads)
        scores = query @ self.memory.representatives(layer).T
        choice = top_frames(
            scores.detach(), self.allowed, newest(self.allowed, cfg.recent_frames), cfg.retrieved_frames
        )
        if self.override is not None:
            choice = self.override(choice)
        choice = choice[:, (choice >= 0).any(0)]
        self.queries.append(query)
        self.scores.append(scores)
        self.choices.append(choice)
        self.contexts.append(self.model.context(self.memory, layer, choice))
        return self.contexts[-1]

    def run(self, tokens: Tensor) -> list[Context]:
        """The retrieval pass; its own output is not used, what every layer chose is."""
        self.model.attend(tokens, self.choose)
        return self.contexts


def pad(rows: list[list[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Right-pads token rows: ids [Q, n] and the mask of real ones."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    valid = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, valid
