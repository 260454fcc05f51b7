"""Mean keys of the frames of recent steps, so that a question learns to tell its evidence from far more than a batch."""

import torch
from torch import Tensor, nn

from config import ModelConfig, TrainConfig
from questions import COLORS, PLACES, SHAPES


class KeyBank(nn.Module):
    """A ring of the newest mean keys [layers, size, width] and what their frames show [size, places * pairs].

    They are some steps old and carry no gradient. Training only; part of the checkpoint, so that a resumed run has it.
    """

    keys: Tensor
    shown: Tensor
    filled: Tensor
    at: Tensor

    def __init__(self, shape: ModelConfig, cfg: TrainConfig) -> None:
        super().__init__()
        text, size = shape.text, cfg.bank_frames
        self.register_buffer("keys", torch.zeros(text.layers, size, text.kv_heads * text.head_dim))
        self.register_buffer("shown", torch.zeros(size, len(PLACES) * len(SHAPES) * len(COLORS)))
        self.register_buffer("filled", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("at", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def add(self, keys: list[Tensor], shown: Tensor) -> None:
        """keys L x [F, width] and shown [F, places, pairs] of a step's frames take the place of the oldest ones."""
        size = len(self.filled)
        slots = (self.at + torch.arange(len(shown))) % size
        self.keys = self.keys.index_copy(1, slots, torch.stack(keys))  # a copy: this step's scores still need the old
        self.shown[slots] = shown.flatten(1)
        self.filled[slots] = True
        self.at.copy_((self.at + len(shown)) % size)

    def foreign(self, asks: Tensor) -> Tensor:
        """The frames [Q, size] that show nothing of what questions ask for: asks [Q, places * pairs]."""
        return (asks @ self.shown.T == 0) & self.filled

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """query [Q, width] -> un-normalised scores [Q, size]."""
        return query @ self.keys[layer].T
