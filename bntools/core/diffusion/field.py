"""What a sampler needs of a model: a velocity at any noise level and resolution, a clock, a price."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bntools.core.diffusion.costs import ForwardCost
from bntools.core.errors import usage
from bntools.kernels.spectral.handoff import Size, Spectrum

POWER = 2.26
"""Exponent of the power spectrum taken where none is measured: that of one image model's latents."""


class Clock(NamedTuple):
    """Times t of a model's own schedule by position u in [0, 1]: shifted, t = h u / (1 + (h - 1) u), or a table.

    table: positions and times, both ascending, of models that are no flow; the last time is where sampling starts.
    """

    shift: float = 1.0
    table: tuple[Sequence[float], Sequence[float]] | None = None

    def time(self, u: float) -> float:
        if self.table is None:
            return self.shift * u / (1 + (self.shift - 1) * u)
        return _interpolated(u, *self.table)

    def position(self, t: float) -> float:
        if self.table is None:
            return t / (self.shift - (self.shift - 1) * t)
        return _interpolated(t, self.table[1], self.table[0])

    @property
    def start(self) -> float:
        """The largest noise level."""
        return 1.0 if self.table is None else float(self.table[1][-1])


def _interpolated(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    import numpy as np

    return float(np.interp(x, xs, ys))


UNSHIFTED = Clock()


class Field(ABC):
    """A velocity field v(x, t) = E[eps - x0 | x] over fields x [N, *shape] = (1 - t) x0 + t eps.

    shape: (C, H, W) or (C, F, H, W) at full resolution. patch: points a side of what the model takes as one token.
    trained: smallest and largest side the model is known to have seen. spectrum: of clean data, where it is known.
    """

    label: str
    kind: str
    shape: tuple[int, ...]
    patch: int = 1
    clock: Clock = UNSHIFTED
    trained: tuple[int, int] | None = None
    spectrum: Spectrum | None = None

    @property
    def size(self) -> Size:
        """(H, W) at full resolution."""
        return self.shape[-2], self.shape[-1]

    def sized(self, scale: float) -> Size:
        """(h, w) at a scale. Raises BnError (exit 2) where that is no whole number of patches."""
        sides = []
        for side in self.size:
            scaled = side * scale
            if abs(scaled - round(scaled)) > 1e-6 * side or round(scaled) % self.patch or round(scaled) < 1:
                raise usage(
                    f"scale {scale:g} of {side} points is {scaled:g}, no multiple of the patch, {self.patch}",
                    "a scale that divides, or another --size",
                )
            sides.append(round(scaled))
        return sides[0], sides[1]

    @abstractmethod
    def velocity(self, x: Tensor, t: float, rows: slice) -> Tensor:
        """Of samples `rows` of the run, x [N, C, (F,) h, w] at any resolution."""

    @abstractmethod
    def cost(self, size: Size) -> ForwardCost:
        """Of one velocity of one sample."""

    def boundary(self) -> None:  # noqa: B027  most fields keep nothing
        """Forget what was cached: another stage or another batch begins."""

    def data_spectrum(self) -> Spectrum:
        """That of the data where it is known, else a power law of variance 1 and exponent 2.26."""
        return self.spectrum or power_law(self.size, POWER, 1.0)


def power_law(size: Size, exponent: float, variance: float) -> Spectrum:
    """Variances (1 + |k|)^-exponent [1, H, W], scaled to a mean of `variance` a point; mean zero."""
    k = torch.hypot(*torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij"))
    power = (1 + k) ** -exponent
    power = power * variance / power.mean()
    return Spectrum(torch.zeros_like(power)[None], power[None])
