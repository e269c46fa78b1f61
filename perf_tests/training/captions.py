"""The sentences about an image, and which combinations are never trained on.

A caption has one number. The number counts through all fields, so that a training step picks
the token ids of a caption from one table with integer arithmetic, on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from perf_tests.training.shapes import COLOURS, SHAPES, SIZES, Scene, every_triple

SIZE_WORDS = ("", "small", "large")
"""A medium shape is never called so: no word means that any size will do."""

PLACE_WORDS = (
    "",
    "at the top left", "at the top", "at the top right",
    "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
"""No words, then one phrase for each of PLACES."""

# Data, not prose: the shipped models were trained on exactly these words.
PHRASINGS = (
    "a {thing} on a {background} background {place}",
    "{thing}, {place}, {background} background",
    "a picture of a {thing} {place} on {background}",
    "on a {background} background, a {thing} {place}",
    "a {background} background with a {thing} {place}",
    "there is a {thing} {place} and the background is {background}",
)

RADIX = (
    len(SHAPES), len(COLOURS), len(COLOURS), len(SIZE_WORDS), len(PLACE_WORDS), len(PHRASINGS)
)  # fmt: skip

EMPTY_SHARE = 0.10
"""Share of training images with an empty caption: it trains classifier-free guidance."""
SIZE_SHARE = 0.5
PLACE_SHARE = 0.8
"""How often a caption names the size (where it has a word) and the place."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What one caption asks for. `size` and `place` are None where it leaves them open."""

    shape: int
    colour: int
    background: int
    size: int | None
    place: int | None
    phrasing: int

    @property
    def triple(self) -> tuple[int, int, int]:
        return self.shape, self.colour, self.background

    @property
    def text(self) -> str:
        size = "" if self.size is None else SIZES[self.size]
        place = "" if self.place is None else PLACE_WORDS[self.place + 1]
        sentence = PHRASINGS[self.phrasing].format(
            thing=f"{size} {COLOURS[self.colour]} {SHAPES[self.shape]}".strip(),
            background=COLOURS[self.background],
            place=place,
        )
        sentence = " ".join(sentence.replace(", ,", ",").split()).strip(" ,")
        return sentence.replace("a orange", "an orange").replace(" ,", ",")


def caption_count() -> int:
    """How many numbers there are, also those of a shape on its own colour (never used)."""
    total = 1
    for base in RADIX:
        total *= base
    return total


def caption_of(number: int) -> Caption:
    """The caption with this number."""
    digits = []
    for base in reversed(RADIX):
        number, digit = divmod(number, base)
        digits.append(digit)
    phrasing, place, size, background, colour, shape = digits
    return Caption(
        shape=shape,
        colour=colour,
        background=background,
        size=SIZES.index(SIZE_WORDS[size]) if size else None,
        place=place - 1 if place else None,
        phrasing=phrasing,
    )


def every_text() -> Iterator[str]:
    """The text of every caption, by number."""
    for number in range(caption_count()):
        yield caption_of(number).text


def is_held_out(shape: int, colour: int, background: int) -> bool:
    """Whether no training image shows this combination; its parts are all shown in others.

    The rule takes about every twelfth combination, and from every row and column of the cube.
    """
    return colour != background and (7 * shape + 3 * colour + 5 * background) % 12 == 0


def training_triples(device: torch.device) -> Tensor:
    """All combinations that may be trained on, int64 (n, 3)."""
    return torch.tensor([t for t in every_triple() if not is_held_out(*t)], device=device)


def held_out_triples(device: torch.device) -> Tensor:
    """All combinations that are kept for the evaluation, int64 (n, 3)."""
    return torch.tensor([t for t in every_triple() if is_held_out(*t)], device=device)


def numbers_for(scene: Scene) -> Tensor:
    """A random true caption for each image of the scene: caption numbers, int64 (batch,).

    The number `caption_count()` stands for the empty caption.
    """
    n, device = scene.shape.shape[0], scene.shape.device
    named = torch.rand(n, device=device) < SIZE_SHARE
    small, large = scene.size == SIZES.index("small"), scene.size == SIZES.index("large")
    word = SIZE_WORDS.index("small") * small + SIZE_WORDS.index("large") * large
    size_word = torch.where(named, word, 0)
    placed = torch.rand(n, device=device) < PLACE_SHARE
    place_word = torch.where(placed, scene.place + 1, 0)
    phrasing = torch.randint(len(PHRASINGS), (n,), device=device)
    number = torch.zeros(n, dtype=torch.int64, device=device)
    fields = (scene.shape, scene.colour, scene.background, size_word, place_word, phrasing)
    for base, digit in zip(RADIX, fields, strict=True):
        number = number * base + digit
    empty = torch.rand(n, device=device) < EMPTY_SHARE
    return torch.where(empty, caption_count(), number)


def held_out_captions(count: int, seed: int) -> list[Caption]:
    """`count` captions of held-out combinations, drawn with `seed`; the same on any machine."""
    generator = torch.Generator().manual_seed(seed)
    triples = held_out_triples(torch.device("cpu")).tolist()

    def pick(below: int) -> int:
        return int(torch.randint(below, (), generator=generator))

    captions = []
    for _ in range(count):
        shape, colour, background = triples[pick(len(triples))]
        size, place = pick(len(SIZE_WORDS)), pick(len(PLACE_WORDS))
        captions.append(
            Caption(
                shape=shape,
                colour=colour,
                background=background,
                size=SIZES.index(SIZE_WORDS[size]) if size else None,
                place=place - 1 if place else None,
                phrasing=pick(len(PHRASINGS)),
            )
        )
    return captions
