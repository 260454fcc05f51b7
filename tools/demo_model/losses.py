"""What the model is trained for: right answers, keys that the system's own score can find, and seeing what is there."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from questions import PLACES

ABSENT = -1e9
SCORE_SCALE = 8.0

# Where the places lie in a picture, as shares of its width and height.
PLACE_CENTRES = {
    "top left": (0.25, 0.25),
    "top right": (0.75, 0.25),
    "bottom left": (0.25, 0.75),
    "bottom right": (0.75, 0.75),
    "center": (0.5, 0.5),
}


class SightHead(nn.Module):
    """Reads from a frame's tokens which (shape, colour) pairs it shows at which places, in two ways.

    From the tokens around a place, which teaches seeing; and from the mean of all tokens, which makes every token
    say what it shows and where: the mean key of a frame, all that retrieval has, can hold no more than that. Used in
    training only, and linear on purpose: what it reads must lie open in the tokens that the decoder gets.
    """

    def __init__(self, hidden: int, grid: int, pairs: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(place_prior(grid))
        self.norm = nn.LayerNorm(hidden)
        self.around = nn.Linear(hidden, pairs)
        self.overall = nn.Linear(hidden, len(PLACES) * pairs)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [F, P, hidden] -> logits [F, places, pairs] from the tokens around, and from the mean of all."""
        x = self.norm(tokens.float())
        around = torch.einsum("zp,fph->fzh", torch.softmax(self.mix, -1), x)
        return self.around(around), self.overall(x.mean(1)).unflatten(1, (len(PLACES), -1))


def place_prior(grid: int) -> Tensor:
    """Logits [places, grid * grid] that look at the tokens around each place; training refines them."""
    centres = torch.tensor([PLACE_CENTRES[place] for place in PLACES]) * grid - 0.5
    line = torch.arange(grid).float()
    across = (line[None] - centres[:, :1]) ** 2
    down = (line[None] - centres[:, 1:]) ** 2
    return -(down[:, :, None] + across[:, None, :]).flatten(1)


def sight_loss(around: Tensor, overall: Tensor, shown: Tensor) -> Tensor:
    """shown [F, places, pairs] is 1 where a frame shows a pair at a place. Summed over labels: most are absent."""
    loss = F.binary_cross_entropy_with_logits(around, shown, reduction="sum")
    loss = loss + F.binary_cross_entropy_with_logits(overall, shown, reduction="sum")
    return loss / len(shown)


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the next token; labels [Q, n] hold -100 where nothing is asked."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)


def retrieval_loss(scores: list[Tensor], wanted: Tensor, usable: Tensor) -> Tensor:
    """Every wanted frame must outrank all unwanted ones of the batch, in every layer, by the score the system uses.

    scores L x [Q, F]: un-normalised dot products of mean query and mean key; wanted, usable [Q, F]. A wanted frame
    competes with the unwanted only, so that several wanted frames need not push each other down.
    """
    asked = wanted.any(1)
    if not asked.any():
        return torch.zeros(())
    wanted, usable = wanted[asked], usable[asked]
    total = torch.zeros(())
    for layer in scores:
        logits = layer[asked].float() / SCORE_SCALE
        rest = logits.masked_fill(wanted | ~usable, ABSENT).logsumexp(1, keepdim=True)
        misses = F.softplus(rest - logits) * wanted
        total = total + (misses.sum(1) / wanted.sum(1)).mean()
    return total / len(scores)
