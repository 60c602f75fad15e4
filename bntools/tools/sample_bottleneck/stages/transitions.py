"""How a field passes from one stage to the next: the exact band, a clean field noised anew, repeated points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as default_field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bntools.core.diffusion.field import Field
from bntools.core.errors import usage
from bntools.kernels.spectral.cosine import band, ratio, spread
from bntools.kernels.spectral.handoff import (
    Size,
    Waiting,
    block_noise,
    noise_above,
    noisier,
    to_high,
    to_low,
)
from bntools.tools.sample_bottleneck.settings import Settings
from bntools.tools.sample_bottleneck.stages.schedule import Stage

Noise = Callable[[int, tuple[int, ...]], Tensor]
"""White noise of a stream number, for a shape [C, (F,) h, w] of each sample at hand."""


@dataclass
class Passage:
    """What transitions of one trajectory share. waiting: high bands, the largest size first."""

    settings: Settings
    field: Field
    noise: Noise
    waiting: list[Waiting] = default_field(default_factory=list)
    streams: int = 0

    def fresh(self, size: Size) -> Tensor:
        """Noise that nothing has seen, at a size."""
        self.streams += 1
        return self.noise(self.streams, (*self.field.shape[:-2], *size))


def begin(passage: Passage, noise: Tensor, stages: tuple[Stage, ...]) -> Tensor:
    """The field at the first stage's size and level from noise at full resolution."""
    x = noise * stages[0].full[0] if passage.settings.method == "spectral" else noise * stages[0].times[0]
    if stages[0].size == passage.field.size:
        return x
    if passage.settings.method == "spectral":
        return lowered(passage, x, stages[0].full[0], [stage.size for stage in stages])
    return band(x, stages[0].size).to(x.dtype)


def lowered(passage: Passage, x: Tensor, level: float, sizes: list[Size]) -> Tensor:
    """Down to sizes[0], by way of the sizes in between that the run comes back to."""
    between = {size for size in sizes[1:] if size[0] > sizes[0][0] and size[0] < x.shape[-2]}
    for size in [*sorted(between, reverse=True), sizes[0]]:
        x, level, rest = to_low(x, level, size)
        passage.waiting.append(rest)
    return x


def by_band(passage: Passage, x: Tensor, before: Stage, after: list[Stage]) -> Tensor:
    """The exact hand-off, down or up. Raises BnError (exit 2) for a size that the run did not come down from."""
    level, size = before.times[-1], after[0].size
    if size == before.size:
        return x
    if size[0] < before.size[0]:
        return lowered(passage, x, level, [stage.size for stage in after])
    while (x.shape[-2], x.shape[-1]) != size:
        if not passage.waiting or passage.waiting[-1].rest.shape[-2] > size[0]:
            raise usage(
                f"no high band waits for {size[0]} x {size[1]}", "stages that go back up as they came down"
            )
        rest = passage.waiting.pop()
        above = (rest.rest.shape[-2], rest.rest.shape[-1])
        if passage.settings.high == "fresh":
            low = (x.shape[-2], x.shape[-1])
            target = noisier(level, ratio(above, low))
            rest = Waiting(target * noise_above(passage.fresh(above), low), target)
        spectrum = None
        if passage.settings.high == "wiener":
            spectrum = banded(passage.field, above)
        x, level = to_high(x, level, rest, spectrum)
    return x


def banded(field: Field, size: Size) -> Any:
    """The data's spectrum at a size: its band over rho."""
    full = field.data_spectrum()
    rho = ratio(field.size, size)
    cut = (..., slice(size[0]), slice(size[1]))
    return type(full)(full.mean[cut] / rho, full.variance[cut] / rho**2)


def by_new_noise(passage: Passage, x: Tensor, before: Stage, after: list[Stage]) -> Tensor:
    """(1 - s) resize(x0) + s eps, eps fresh; x is clean, or its level is left out of account (the paper)."""
    s, size = after[0].times[0], after[0].size
    return (1 - s) * resized(x, size, passage.settings.resize) + s * passage.fresh(size)


def by_blocks(passage: Passage, x: Tensor, before: Stage, after: list[Stage]) -> Tensor:
    """a NN(x) + b z with z ~ N(0, 1 - c S): white noise again at level b = s, data 1 - s (RALU's noise matching).

    Repeated noise has covariance t^2 S; with a = (1 - s) / (1 - t), a^2 t^2 S + b^2 (1 - c S) = b^2.
    """
    t, s, size = before.times[-1], after[0].times[0], after[0].size
    if size == before.size:
        return x
    rows, columns = size[0] // before.size[0], size[1] // before.size[1]
    repeated = x.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    c = passage.settings.c or 1 / (rows * columns)
    return (1 - s) / (1 - t) * repeated + s * block_noise(passage.fresh(size), (rows, columns), c)


def resized(x: Tensor, size: Size, kernel: str) -> Tensor:
    """x [N, ..., H, W] at another size by an image kernel; `dct` cuts or pads coefficients and keeps the mean."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    if kernel == "dct":
        old = (x.shape[-2], x.shape[-1])
        return (
            band(x, size) / ratio(old, size) if size[0] < old[0] else spread(x, size) * ratio(size, old)
        ).to(x)
    if kernel == "lanczos3":
        rows, columns = (lanczos(n, m).to(x) for n, m in zip(x.shape[-2:], size, strict=True))
        return rows @ x @ columns.T
    flat = x.reshape(len(x), -1, *x.shape[-2:])
    smooth = {"align_corners": False} if kernel in ("bilinear", "bicubic") else {}
    return interpolate(flat, size, mode=kernel, **smooth).reshape(*x.shape[:-2], *size)


def lanczos(points: int, wanted: int) -> Tensor:
    """Matrix [wanted, points] of Lanczos-3 with half-pixel centres, wider when it shrinks; rows add up to 1."""
    scale = max(points / wanted, 1.0)
    centres = (torch.arange(wanted, dtype=torch.float64) + 0.5) * points / wanted
    distance = (torch.arange(points, dtype=torch.float64) + 0.5 - centres[:, None]) / scale
    weights = torch.sinc(distance) * torch.sinc(distance / 3) * (distance.abs() < 3)
    return weights / weights.sum(1, keepdim=True)


JOINS: dict[str, Callable[[Passage, Tensor, Stage, list[Stage]], Tensor]] = {
    "band": by_band, "renoise": by_new_noise, "blocks": by_blocks,
}  # fmt: skip
