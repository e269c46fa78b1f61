"""What an image shows, and the painter that draws it.

Everything is drawn with tensor arithmetic on the training device, a batch at a time: the data
costs no disk, no download and hardly any time. A caption names shape, colour and background,
often place and size; it never names the exact position, the angle, the tint or the slope of
the background's light. Those are left to the noise, so that another seed is another image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

IMAGE_SIDE = 64
"""Width and height of an image in pixels."""

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.05, 0.08),
    "orange": (1.00, 0.45, 0.05),
    "yellow": (0.98, 0.92, 0.15),
    "green": (0.10, 0.60, 0.15),
    "cyan": (0.10, 0.80, 0.85),
    "blue": (0.10, 0.20, 0.85),
    "purple": (0.50, 0.10, 0.65),
    "pink": (1.00, 0.55, 0.80),
    "white": (0.95, 0.95, 0.95),
    "black": (0.05, 0.05, 0.05),
}
"""Colours by name, RGB in [0, 1]; no two are closer than 0.4."""

COLOURS = tuple(PALETTE)

PLACES = (
    "top left", "top", "top right",
    "left", "middle", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
"""Row by row; the index is 3 * row + column."""

PLACE_CENTRES_PX = (18.5, 32.0, 45.5)
"""Where the centre of a shape lies for column (or row) 0, 1 and 2."""

PLACE_JITTER_PX = 2.0
LIMITS_PX = (25.25, 38.75)
"""Half-way between two neighbouring centres: what lies between them is the middle."""

SIZES = ("small", "medium", "large")
RADII_PX = ((9.0, 10.5), (11.8, 13.2), (14.5, 16.0))
"""The range of the radius for each size."""

MAX_ANGLE = math.radians(15)
LIGHT_RANGE = (0.05, 0.13)
"""How much the background's light changes from the middle of the image to its side."""
TINT = 0.03

Distance = Callable[[Tensor, Tensor], Tensor]
"""Signed distance to an outline, negative inside, for x (right) and y (up) in radii."""


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.80


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    sides = torch.maximum(-y, 0.5 * y + math.sqrt(0.75) * x.abs())
    return sides - 0.55


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    half_width = 0.58
    return (x.abs() / half_width + y.abs() - 1.0) / math.hypot(1 / half_width, 1.0)


def _star(x: Tensor, y: Tensor) -> Tensor:
    # Fold the plane into one tenth of the star, where its outline is one straight line from a
    # tip (radius 1, angle 0) to a notch (radius 0.45, angle 36 degrees).
    tenth = math.pi / 5
    angle = torch.atan2(x, y)
    folded = (torch.remainder(angle + tenth, 2 * tenth) - tenth).abs()
    radius = torch.hypot(x, y)
    along, across = radius * torch.cos(folded), radius * torch.sin(folded)
    notch_along, notch_across = 0.45 * math.cos(tenth), 0.45 * math.sin(tenth)
    length = math.hypot(notch_along - 1.0, notch_across)
    return ((along - 1.0) * notch_across - across * (notch_along - 1.0)) / length


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 0.32, y - 0.95), torch.maximum(x - 0.95, y - 0.32))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.72).abs() - 0.25


def _heart(x: Tensor, y: Tensor) -> Tensor:
    # A square standing on its corner, and a circle on each of its two upper sides.
    half_side = 0.52
    y = y + 0.15
    u, v = (x + y) * math.sqrt(0.5), (y - x) * math.sqrt(0.5)
    square = torch.maximum(u.abs(), v.abs()) - half_side
    right = torch.hypot(u - half_side, v) - half_side
    left = torch.hypot(u, v - half_side) - half_side
    return torch.minimum(square, torch.minimum(left, right))


OUTLINES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
}
SHAPES = tuple(OUTLINES)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a batch of images shows. Indices are int64 (batch,), the rest is float32."""

    shape: Tensor
    colour: Tensor
    background: Tensor
    size: Tensor
    place: Tensor
    centre_px: Tensor
    """(batch, 2): x to the right, y down, as pixels are counted."""
    radius_px: Tensor
    angle: Tensor
    """Radians, counter-clockwise."""
    light: Tensor
    """(batch, 2): change of the background's brightness from the middle to the right side,
    and from the middle to the lower side."""
    tint: Tensor
    """(batch, 3): added to the shape's colour."""


def every_triple() -> list[tuple[int, int, int]]:
    """All (shape, colour, background) in which the shape can be seen."""
    colours = range(len(COLOURS))
    return [(s, c, b) for s in range(len(SHAPES)) for c in colours for b in colours if b != c]


class Painter:
    """Draws scenes on one device.

    Its constants live on the device from the start: a copy from the host in the middle of a
    training step would forbid capturing the step as a CUDA graph.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.palette = torch.tensor(list(PALETTE.values()), device=device)
        self._centres = torch.tensor(PLACE_CENTRES_PX, device=device)
        self._radii = torch.tensor(RADII_PX, device=device)
        line = torch.arange(IMAGE_SIDE, device=device, dtype=torch.float32) + 0.5
        self.y_px, self.x_px = torch.meshgrid(line, line, indexing="ij")

    def scene(self, triple: Tensor) -> Scene:
        """A random scene for each (shape, colour, background) in `triple`, int64 (batch, 3)."""
        n, device = triple.shape[0], self.device
        size = torch.randint(len(SIZES), (n,), device=device)
        place = torch.randint(len(PLACES), (n,), device=device)
        cell = torch.stack((place % 3, place // 3), dim=1)
        jitter = (2 * torch.rand(n, 2, device=device) - 1) * PLACE_JITTER_PX
        low, high = self._radii[size].unbind(1)
        direction = 2 * math.pi * torch.rand(n, device=device)
        slope = LIGHT_RANGE[0] + (LIGHT_RANGE[1] - LIGHT_RANGE[0]) * torch.rand(n, device=device)
        return Scene(
            shape=triple[:, 0],
            colour=triple[:, 1],
            background=triple[:, 2],
            size=size,
            place=place,
            centre_px=self._centres[cell] + jitter,
            radius_px=low + (high - low) * torch.rand(n, device=device),
            angle=(2 * torch.rand(n, device=device) - 1) * MAX_ANGLE,
            light=torch.stack((slope * torch.cos(direction), slope * torch.sin(direction)), 1),
            tint=(2 * torch.rand(n, 3, device=device) - 1) * TINT,
        )

    def coverage(
        self,
        outline: str | None,
        shape: Tensor,
        centre_px: Tensor,
        radius_px: Tensor,
        angle: Tensor,
    ) -> Tensor:
        """How much of each pixel the shape covers, (batch, 64, 64) in [0, 1], antialiased.

        `outline` draws that one shape for the whole batch; None draws each image's `shape`.
        """
        dx = self.x_px - centre_px[:, 0, None, None]
        dy = centre_px[:, 1, None, None] - self.y_px
        radius, angle = radius_px[:, None, None], angle[:, None, None]
        x = (dx * torch.cos(angle) + dy * torch.sin(angle)) / radius
        y = (dy * torch.cos(angle) - dx * torch.sin(angle)) / radius
        if outline is not None:
            distance = OUTLINES[outline](x, y)
        else:
            distances = torch.stack([draw(x, y) for draw in OUTLINES.values()], dim=1)
            index = shape[:, None, None, None].expand(-1, 1, IMAGE_SIDE, IMAGE_SIDE)
            distance = distances.gather(1, index).squeeze(1)
        return (0.5 - distance * radius).clamp(0, 1)

    def draw(self, scene: Scene) -> Tensor:
        """The scenes' images, (batch, 3, 64, 64) in [-1, 1]."""
        half = IMAGE_SIDE / 2
        right, down = scene.light[:, 0, None, None], scene.light[:, 1, None, None]
        light = right * (self.x_px / half - 1) + down * (self.y_px / half - 1)
        background = self.palette[scene.background][:, :, None, None] + light[:, None]
        colour = (self.palette[scene.colour] + scene.tint)[:, :, None, None]
        covered = self.coverage(None, scene.shape, scene.centre_px, scene.radius_px, scene.angle)[
            :, None
        ]
        image = background.clamp(0, 1) * (1 - covered) + colour.clamp(0, 1) * covered
        return 2 * image - 1
