"""Questions about a training clip, made as truthcam makes them about a whole video: one right answer each.

The wordings are truthcam's; train.py checks every one it generates against `truthcam --vocabulary`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from data import Sighting

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS = ("red", "green", "blue", "yellow", "purple", "white")
PLACES = ("top left", "top right", "bottom left", "bottom right", "center")
NUMBERS = ("zero", "one", "two", "three")
EVIDENCE_FRAMES_MAX = 8
APPEARANCES_MAX = 3
ATTEMPTS = 12

COLOR_TEXTS = ("What color was the {}{}?", "Which color did the {}{} have?", "Tell me the color of the {}{}.")
SHAPE_TEXTS = (
    "What shape was the {} one{}?",
    "Which shape did the {} one{} have?",
    "Tell me the shape of the {} one{}.",
)
WHERE_TEXTS = ("Where was the {} {}?", "In which place was the {} {}?", "Where did the {} {} show up?")
DID_TEXTS = ("Did a {} {} appear?", "Was there a {} {}?", "Have you seen a {} {}?")
WITH_TEXTS = (
    "How many other shapes were there with the {} {}?",
    "How many shapes were beside the {} {}?",
    "With how many others was the {} {}?",
)
TIMES_TEXTS = (
    "How many times did the {} {} appear?",
    "How often was the {} {} there?",
    "How often did the {} {} show up?",
)
FIRST_TEXTS = (
    "Which came first, the {} {} or the {} {}?",
    "What was there first, the {} {} or the {} {}?",
    "Which was earlier, the {} {} or the {} {}?",
)
NOW_TEXTS = ("What is in view now?", "What is there right now?", "What do you see now?")


@dataclass(frozen=True)
class Stay:
    """One object's stay in a clip, in clip frames, both ends inside; objects of a scene share their frames."""

    shape: str
    color: str
    place: str
    first: int
    last: int

    @property
    def name(self) -> tuple[str, str]:
        return self.color, self.shape


@dataclass(frozen=True)
class Wanted:
    """What a frame must show to be evidence; None is any."""

    shape: str | None = None
    color: str | None = None
    place: str | None = None

    def fits(self, thing: Stay | Sighting) -> bool:
        return (
            self.shape in (None, thing.shape)
            and self.color in (None, thing.color)
            and self.place in (None, thing.place)
        )


@dataclass(frozen=True)
class Asked:
    """A question, its answer, what proves it (nothing for a true "no" and for "now"; what the answer tells of comes
    first), the newest frame it sees, and where in the evidence the answer is read."""

    kind: str
    text: str
    answer: str
    wanted: tuple[Wanted, ...]
    as_of: int
    read: str = "wanted"  # at what is wanted, for a "tally" too; or at all the "company" in its frames


def place_phrase(place: str) -> str:
    return f" in the {place}" if place == "center" else f" at the {place}"


@dataclass
class Scene:
    """What the askers look at: the stays of a clip, its length, and the dice."""

    stays: list[Stay]
    frames: int
    draw: random.Random

    def gather(self, wanted: Wanted) -> list[Stay]:
        """The stays that fit, or none when they fill more frames than one retrieval brings."""
        found = [stay for stay in self.stays if wanted.fits(stay)]
        return found if sum(stay.last - stay.first + 1 for stay in found) <= EVIDENCE_FRAMES_MAX else []

    def made(self, kind: str, text: str, answer: str, *wanted: Wanted) -> Asked:
        return Asked(kind, text, answer, wanted, self.frames - 1)


def ask_color(scene: Scene) -> Asked | None:
    stay = scene.draw.choice(scene.stays)
    for wanted in (Wanted(shape=stay.shape), Wanted(shape=stay.shape, place=stay.place)):
        found = scene.gather(wanted)
        if found and len({other.color for other in found}) == 1:
            phrase = place_phrase(stay.place) if wanted.place else ""
            text = scene.draw.choice(COLOR_TEXTS).format(stay.shape, phrase)
            return scene.made("color", text, stay.color, wanted)
    return None


def ask_shape(scene: Scene) -> Asked | None:
    stay = scene.draw.choice(scene.stays)
    for wanted in (Wanted(color=stay.color), Wanted(color=stay.color, place=stay.place)):
        found = scene.gather(wanted)
        if found and len({other.shape for other in found}) == 1:
            phrase = place_phrase(stay.place) if wanted.place else ""
            text = scene.draw.choice(SHAPE_TEXTS).format(stay.color, phrase)
            return scene.made("shape", text, stay.shape, wanted)
    return None


def ask_where(scene: Scene) -> Asked | None:
    stay = scene.draw.choice(scene.stays)
    wanted = Wanted(stay.shape, stay.color)
    found = scene.gather(wanted)
    if not found or len({other.place for other in found}) != 1:
        return None
    return scene.made("where", scene.draw.choice(WHERE_TEXTS).format(*stay.name), stay.place, wanted)


def ask_did(scene: Scene) -> Asked | None:
    stay = scene.draw.choice(scene.stays)
    text = scene.draw.choice(DID_TEXTS)
    if scene.draw.random() < 0.5:
        wanted = Wanted(stay.shape, stay.color)
        return scene.made("did", text.format(*stay.name), "yes", wanted) if scene.gather(wanted) else None
    company = [other for other in scene.stays if other.first == stay.first]  # a "no" is hardest in one picture
    color = scene.draw.choice(company if scene.draw.random() < 0.5 else scene.stays).color
    if any(other.name == (color, stay.shape) for other in scene.stays):
        return None
    return scene.made("did", text.format(color, stay.shape), "no")


def ask_count(scene: Scene) -> Asked | None:
    """How often, or with how many others: first the number is drawn of those there are, then an object for it."""
    often = scene.draw.random() < 0.5
    by_number: dict[int, list[Stay]] = {}
    for stay in scene.stays:
        found = len(scene.gather(Wanted(stay.shape, stay.color)))
        if often and 0 < found <= APPEARANCES_MAX:
            by_number.setdefault(found, []).append(stay)
        elif not often and found == 1:
            others = sum(other.first == stay.first for other in scene.stays) - 1
            by_number.setdefault(others, []).append(stay)
    if not by_number:
        return None
    numbers = sorted(by_number)
    number = scene.draw.choices(numbers, [1 + each for each in numbers])[0]  # high numbers are rare in clips
    stay = scene.draw.choice(by_number[number])
    text = scene.draw.choice(TIMES_TEXTS if often else WITH_TEXTS).format(*stay.name)
    asked = scene.made("count", text, NUMBERS[number], Wanted(stay.shape, stay.color))
    return replace(asked, read="tally" if often else "company")


def ask_first(scene: Scene) -> Asked | None:
    one, two = scene.draw.choice(scene.stays), scene.draw.choice(scene.stays)
    wanted = (Wanted(one.shape, one.color), Wanted(two.shape, two.color))
    if one.first == two.first or any(len(scene.gather(want)) != 1 for want in wanted):
        return None
    early = one if one.first < two.first else two
    text = scene.draw.choice(FIRST_TEXTS).format(*one.name, *two.name)
    return scene.made("first", text, " ".join(early.name), *(wanted if early is one else wanted[::-1]))


def ask_now(scene: Scene) -> Asked | None:
    stay = scene.draw.choice(scene.stays)
    nothing = scene.draw.random() < 1 / 3
    frame = scene.draw.randrange(1, scene.frames) if nothing else scene.draw.randint(stay.first, stay.last)
    in_view = [other for other in scene.stays if other.first <= frame <= other.last]
    if len(in_view) != (0 if nothing else 1):
        return None
    answer = "nothing" if nothing else " ".join(in_view[0].name)
    return Asked("now", scene.draw.choice(NOW_TEXTS), answer, (), frame)


ASKERS: dict[str, Callable[[Scene], Asked | None]] = {
    "color": ask_color,
    "shape": ask_shape,
    "where": ask_where,
    "did": ask_did,
    "count": ask_count,
    "first": ask_first,
    "now": ask_now,
}


def ask_about(stays: list[Stay], frames: int, count: int, draw: random.Random) -> list[Asked]:
    """Up to count questions, the kinds in turn from a random one; none when nothing appears."""
    if not stays:
        return []
    scene = Scene(stays, frames, draw)
    kinds = [*ASKERS, "count", "first"]  # the hardest two come twice
    start = draw.randrange(len(kinds))
    out: list[Asked] = []
    for turn in range(2 * count):
        asker = ASKERS[kinds[(start + turn) % len(kinds)]]
        for _ in range(ATTEMPTS):
            asked = asker(scene)
            if asked is not None:
                out.append(asked)
                break
        if len(out) == count:
            break
    return out


def every_text(draw: random.Random, rounds: int) -> list[str]:
    """A sample of all wordings, for checking them against the tool's own list."""
    out: list[str] = []
    for _ in range(rounds):
        stays = [
            Stay(draw.choice(SHAPES), draw.choice(COLORS), draw.choice(PLACES), 4 * at, 4 * at + draw.randint(0, 3))
            for at in range(8)
        ]
        out += [asked.text for asked in ask_about(stays, 40, 14, draw)]
    return out
