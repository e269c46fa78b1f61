"""Says from an image which shape it shows, in which colours, and where. No network in it.

The background is the sloping plane that fits the image's border; the shape is what departs
from it; its colour is the nearest of the palette; and its outline is compared with that of
every shape, drawn in the same place, of the same area, at several angles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from perf_tests.training.shapes import (
    IMAGE_SIDE,
    LIMITS_PX,
    MAX_ANGLE,
    OUTLINES,
    RADII_PX,
    Painter,
)

BORDER_PX = 4
MIN_CONTRAST = 0.15
"""RGB distance from the background below which there is no shape to see."""
MIN_FIT = 0.60
"""Overlap (intersection over union) below which an outline is an unknown shape."""
MAX_COLOUR_DISTANCE = 0.35
"""RGB distance beyond which a colour is outside the palette."""
NOTHING = -1
ANGLES = tuple(MAX_ANGLE * step / 3 for step in range(-4, 5))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the images of a batch show; indices into SHAPES, COLOURS, PLACES and SIZES.

    `NOTHING` stands where there is no answer. All are int64 (batch,); `fit` is float32.
    """

    shape: Tensor
    colour: Tensor
    background: Tensor
    place: Tensor
    size: Tensor
    fit: Tensor
    """Overlap of the outline with that of the shape it was taken for, 0 to 1."""


class Evaluator:
    """Looks at images on one device."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter
        device = painter.device
        half = IMAGE_SIDE / 2
        x, y = painter.x_px / half - 1, painter.y_px / half - 1
        self._plane = torch.stack((torch.ones_like(x), x, y), dim=-1).reshape(-1, 3)
        inner = torch.zeros(IMAGE_SIDE, IMAGE_SIDE, device=device)
        inner[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = 1
        self._border = inner.reshape(-1) == 0
        self._areas, self._centroids = self._unit_outlines()

    def look(self, images: Tensor) -> Seen:
        """What the images, (batch, 3, 64, 64) in [0, 1], show."""
        on_device = images.to(self._plane.device, torch.float32)
        parts = [self._look(part) for part in torch.split(on_device, 64)]
        return Seen(
            **{
                name: torch.cat([getattr(part, name) for part in parts])
                for name in Seen.__dataclass_fields__
            }
        )

    def _look(self, images: Tensor) -> Seen:
        pixels = images.flatten(2).transpose(1, 2)
        middle, background = self._background(pixels)
        away = (pixels - background).norm(dim=2)
        contrast = away.quantile(0.985, dim=1)
        strong = away > 0.6 * contrast[:, None]
        colour = _mean(pixels, strong)
        behind = _mean(background, strong)
        difference = colour - behind
        along = ((pixels - background) * difference[:, None]).sum(2)
        cover = (along / difference.square().sum(1, keepdim=True).clamp(min=1e-6)).clamp(0, 1)
        cover = torch.where(cover < 0.2, 0.0, cover).reshape(-1, IMAGE_SIDE, IMAGE_SIDE)

        area = cover.sum((1, 2)).clamp(min=1e-3)
        centroid = torch.stack(
            ((cover * self._painter.x_px).sum((1, 2)), (cover * self._painter.y_px).sum((1, 2))), 1
        ) / area[:, None]  # fmt: skip
        fits, radii, centres = self._fits(cover, area, centroid)
        fit, shape = fits.max(dim=1)
        picked = shape[:, None]
        radius = radii.gather(1, picked).squeeze(1)
        centre = centres.gather(1, picked[..., None].expand(-1, 1, 2)).squeeze(1)

        there = (contrast > MIN_CONTRAST) & (fit > MIN_FIT)
        cell = torch.bucketize(centre, torch.tensor(LIMITS_PX, device=centre.device))
        bounds = [(RADII_PX[i][1] + RADII_PX[i + 1][0]) / 2 for i in range(len(RADII_PX) - 1)]
        size = torch.bucketize(radius, torch.tensor(bounds, device=radius.device))
        return Seen(
            shape=torch.where(there, shape, NOTHING),
            colour=torch.where(there, self._nearest(colour), NOTHING),
            background=self._nearest(middle),
            place=torch.where(there, 3 * cell[:, 1] + cell[:, 0], NOTHING),
            size=torch.where(there, size, NOTHING),
            fit=fit,
        )

    def _background(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The plane through the border: its colour in the middle, (batch, 3), and everywhere."""
        at, wanted = self._plane[self._border], pixels[:, self._border]
        weight = torch.ones_like(wanted[..., 0])
        plane = torch.zeros(pixels.shape[0], 3, 3, device=pixels.device)
        for _ in range(3):
            weighted = at * weight[..., None]
            plane = torch.linalg.solve(
                weighted.transpose(1, 2) @ at, weighted.transpose(1, 2) @ wanted
            )
            off = (at @ plane - wanted).norm(dim=2)
            # A large shape can touch the border: leave out the fifth that fits worst.
            weight = (off <= off.quantile(0.8, dim=1, keepdim=True)).float()
        return plane[:, 0], self._plane @ plane

    def _fits(self, cover: Tensor, area: Tensor, centroid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each shape: best overlap (batch, shapes), radius, centre (batch, shapes, 2)."""
        fits, radii, centres = [], [], []
        for number, outline in enumerate(OUTLINES):
            radius = (area / self._areas[number]).sqrt()
            best = torch.zeros_like(area)
            centre = centroid
            for angle in ANGLES:
                cos, sin = math.cos(angle), math.sin(angle)
                right, up = self._centroids[number].unbind()
                offset = torch.stack((right * cos - up * sin, -(right * sin + up * cos)))
                here = centroid - radius[:, None] * offset
                drawn = self._painter.coverage(
                    outline, area, here, radius, torch.full_like(area, angle)
                )
                shared = torch.minimum(drawn, cover).sum((1, 2))
                overlap = shared / torch.maximum(drawn, cover).sum((1, 2))
                centre = torch.where((overlap > best)[:, None], here, centre)
                best = torch.maximum(best, overlap)
            fits.append(best)
            radii.append(radius)
            centres.append(centre)
        return torch.stack(fits, 1), torch.stack(radii, 1), torch.stack(centres, 1)

    def _unit_outlines(self) -> tuple[Tensor, Tensor]:
        """Area in square radii, and centroid (x to the right, y up) in radii, of each shape."""
        side = torch.linspace(-1.2, 1.2, 481)
        y, x = torch.meshgrid(-side, side, indexing="ij")
        inside = torch.stack([(draw(x, y) < 0).float() for draw in OUTLINES.values()])
        cell = float(side[1] - side[0]) ** 2
        count = inside.sum((1, 2))
        centroid = torch.stack(((inside * x).sum((1, 2)), (inside * y).sum((1, 2))), 1)
        device = self._painter.device
        return (count * cell).to(device), (centroid / count[:, None]).to(device)

    def _nearest(self, colours: Tensor) -> Tensor:
        distance, index = torch.cdist(colours, self._painter.palette).min(dim=1)
        return torch.where(distance < MAX_COLOUR_DISTANCE, index, NOTHING)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen pixels of each image, (batch, 3)."""
    weight = chosen.float()[..., None]
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)
