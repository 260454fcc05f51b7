"""What the model is trained for: right answers, keys that the system's own score can find, and seeing what is there."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import Context, DemoModel, attention_logits
from questions import PLACES

ABSENT = -1e9
SCORE_SCALE = 8.0
REST_WEIGHT = 8.0  # what a tally's attention gives to all that is not a frame, in tokens counted

# Where the places lie in a picture, as shares of its width and height.
PLACE_CENTRES = {
    "top left": (0.25, 0.25),
    "top right": (0.75, 0.25),
    "bottom left": (0.25, 0.75),
    "bottom right": (0.75, 0.75),
    "center": (0.5, 0.5),
}


class SightHead(nn.Module):
    """Reads from a frame's tokens which (shape, colour) pairs it shows at which places, in two ways, and from every
    token which part of the picture it is.

    From the tokens around a place, which teaches seeing; and from the mean of all tokens, which makes every token
    say what it shows and where: the mean key of a frame, all that retrieval has, can hold no more than that. Both can
    be right with a place told differently for every pair, which no "where" question can read; so each token tells its
    own place too. Used in training only, and linear on purpose: what it reads must lie open in the tokens that the
    decoder gets.
    """

    def __init__(self, hidden: int, grid: int, pairs: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(place_prior(grid))
        self.norm = nn.LayerNorm(hidden)
        self.around = nn.Linear(hidden, pairs)
        self.overall = nn.Linear(hidden, len(PLACES) * pairs)
        self.own = nn.Linear(hidden, grid * grid)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens [F, P, hidden] -> logits [F, places, pairs] from the tokens around, and from the mean of all;
        and logits [F, P, P] of every token's own place."""
        x = self.norm(tokens.float())
        around = torch.einsum("zp,fph->fzh", torch.softmax(self.mix, -1), x)
        return self.around(around), self.overall(x.mean(1)).unflatten(1, (len(PLACES), -1)), self.own(x)


def place_prior(grid: int) -> Tensor:
    """Logits [places, grid * grid] that look at the tokens around each place; training refines them."""
    centres = torch.tensor([PLACE_CENTRES[place] for place in PLACES]) * grid - 0.5
    line = torch.arange(grid).float()
    across = (line[None] - centres[:, :1]) ** 2
    down = (line[None] - centres[:, 1:]) ** 2
    return -(down[:, :, None] + across[:, None, :]).flatten(1)


def sight_loss(around: Tensor, overall: Tensor, own: Tensor, shown: Tensor) -> Tensor:
    """shown [F, places, pairs] is 1 where a frame shows a pair at a place. Summed over labels: most are absent."""
    loss = F.binary_cross_entropy_with_logits(around, shown, reduction="sum")
    loss = loss + F.binary_cross_entropy_with_logits(overall, shown, reduction="sum")
    places = torch.arange(own.shape[1]).repeat(len(own))
    return (loss + F.cross_entropy(own.flatten(0, 1), places, reduction="sum")) / len(shown)


class ArrivalHead(nn.Module):
    """Reads from the values of a frame's tokens, in the layers that can know, whether what a token shows has come in
    with this very frame. Training only, and linear, 0 or 1: the mean of such values, which is what attention makes, is
    the share of an object's frames in which it came; that share of their number is how often.
    """

    FIRST_LAYER = 2  # one layer to see what is where, one to compare with the frame before

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.read = nn.ModuleList(nn.Linear(width, 1) for _ in range(self.FIRST_LAYER, layers))

    def loss(self, frame_v: list[Tensor], arrived: Tensor) -> Tensor:
        """frame_v as in Memory, arrived [F, P] of 0 and 1 -> squared errors of a frame's tokens, mean over layers."""
        total = torch.zeros(())
        for read, values in zip(self.read, frame_v[self.FIRST_LAYER :]):
            told = read(values.transpose(1, 2).flatten(2).float())[..., 0]
            total = total + (told - arrived).square().sum() / len(arrived)
        return total / len(self.read)


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the next token; labels [Q, n] hold -100 where nothing is asked."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)


def ranking_loss(scores: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Whatever is wanted must outrank all that is not, in every layer: scores and wanted L x [Q, N].

    A wanted one competes with the unwanted only, so that several wanted ones need not push each other down.
    Questions that want nothing, or whose context holds nothing wanted, do not count.
    """
    total = torch.zeros(())
    for logits, good in zip(scores, wanted):
        asked = good.any(1)
        if not asked.any():
            continue
        logits, good = logits[asked].float(), good[asked]
        rest = logits.masked_fill(good, ABSENT).logsumexp(1, keepdim=True)
        misses = F.softplus(rest - logits) * good
        total = total + (misses.sum(1) / good.sum(1)).mean()
    return total / len(scores)


def tally_loss(looks: list[Tensor], wanted: list[Tensor], prompt_tokens: int) -> Tensor:
    """Whatever is to be counted must weigh the same, for every head of every layer: looks L x [N, H, m + n] over a
    context and the question itself, wanted L x [N, m] of the context.

    Attention is a mean. It tells how many there are only beside something that weighs the same however many there are:
    the prompt and the question. Without that, one and two are looked at alike.
    """
    total = torch.zeros(())
    for logits, good in zip(looks, wanted):
        some = good.any(1)
        if not some.any():
            continue
        share, good = logits[some].float().log_softmax(2), good[some][:, None]
        tokens = good.shape[2]
        rest = torch.cat([share[:, :, :prompt_tokens], share[:, :, tokens:]], 2).logsumexp(2)
        told = (share[:, :, :tokens] * good).sum(2) + REST_WEIGHT * rest
        total = total - (told / (good.sum(2) + REST_WEIGHT)).mean()
    return total / len(looks)


class Pointer:
    """Watches where the tokens that must give the answer look: their attention logits in every layer but the first,
    where they do not know the question yet.

    Training asks for the tokens of the context that show what the question is about; once the answer has begun, for
    those it tells of. Left to the answers alone, the model long stays content with guessing among all that is in the
    context. The token that ends the answer need not look.
    """

    def __init__(self, labels: Tensor) -> None:
        told = labels[:, 1:] >= 0
        self.rows, self.at = (told[:, :-1] & told[:, 1:]).nonzero(as_tuple=True)
        self.has_begun = labels[self.rows, self.at] >= 0
        self.looks: list[Tensor] = []

    def watch(self, layer: int, logits: Tensor) -> None:
        """Keeps a layer's looks, [N, H, m + n]: over the context, then over the question itself."""
        if layer > 0:
            self.looks.append(logits[self.rows, :, self.at])

    def wanted(self, wanted: Tensor, told: Tensor) -> Tensor:
        """The tokens [Q, m] of a context that are wanted, and told of -> what each of the looks is to find: [N, m]."""
        return torch.where(self.has_begun[:, None], told[self.rows], wanted[self.rows])


def wanted_in_context(places: Tensor, choice: Tensor, prompt_tokens: int) -> Tensor:
    """places [Q, F, P] marks wanted tokens; choice [Q, S] the frames of a context -> the context's tokens [Q, m].

    The prompt's tokens, which stand before the frames, are never wanted.
    """
    rows = torch.arange(len(choice))[:, None]
    frames = (places[rows, choice.clamp(min=0)] & (choice >= 0)[:, :, None]).flatten(1)
    return F.pad(frames, (prompt_tokens, 0))
