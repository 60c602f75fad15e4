"""A noisy field x = (1 - t) x0 + t eps passes between resolutions without new noise, exactly in the band they share.

Data at the low resolution are the band of the data divided by rho, which keeps the mean; noise in the band keeps its
variance. So the same field has another noise level there: t_high = rho t / (1 + (rho - 1) t), and coefficients differ
by the gain kappa = rho / (1 + (rho - 1) t) = t_high / t. Both follow from (1 - t) kappa / rho = 1 - t_high and
t kappa = t_high. The high band waits: scaled to its new noise level, moved as a Gaussian of known spectrum would move,
or drawn anew.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from bntools.kernels.spectral.cosine import band, dct2, idct2, ratio, spread

Size = tuple[int, int]


class Spectrum(NamedTuple):
    """Mean and variance [C, H, W] (or [1, H, W]) of the DCT coefficients of clean data, at their full resolution."""

    mean: Tensor
    variance: Tensor

    def moved(self, before: float, after: float, c: Tensor) -> Tensor:
        """Coefficients at noise level `before` taken to `after` along the flow of a Gaussian with this spectrum."""
        scale = ((1 - after) ** 2 * self.variance + after**2) / (
            (1 - before) ** 2 * self.variance + before**2
        )
        return (1 - after) * self.mean + scale.sqrt() * (c - (1 - before) * self.mean)


class Waiting(NamedTuple):
    """The high band of a field, [..., H, W] float64 with an empty low band, and its noise level."""

    rest: Tensor
    level: float


def noisier(t: float, rho: float) -> float:
    """The level at the high resolution of what has level t at the low one."""
    return rho * t / (1 + (rho - 1) * t)


def cleaner(t: float, rho: float) -> float:
    """The level at the low resolution of what has level t at the high one."""
    return t / (rho - (rho - 1) * t)


def to_low(x: Tensor, t: float, size: Size) -> tuple[Tensor, float, Waiting]:
    """x [..., H, W] at level t as a field of `size`: the field, its level, and the high band that waits."""
    high = (x.shape[-2], x.shape[-1])
    rho = ratio(high, size)
    level = cleaner(t, rho)
    gain = noisier(level, rho) / level if level > 0 else rho
    low = band(x, size)
    rest = x.double() - spread(low, high)
    return (low / gain).to(x.dtype), level, Waiting(rest, t)


def to_high(x: Tensor, t: float, waiting: Waiting, spectrum: Spectrum | None = None) -> tuple[Tensor, float]:
    """The inverse: x [..., h, w] at level t joined to its high band. Returns the field and its level.

    Without a spectrum the band is scaled to its new noise level, with one it moves as a Gaussian: the exact flow if
    data are one. `to_high(*to_low(x, t, size))` is x for any sizes.
    """
    high = (waiting.rest.shape[-2], waiting.rest.shape[-1])
    rho = ratio(high, (x.shape[-2], x.shape[-1]))
    level = noisier(t, rho)
    gain = level / t if t > 0 else rho
    if spectrum is None or level == waiting.level:
        rest = waiting.rest * (level / waiting.level if waiting.level > 0 else 1.0)
    else:
        c = dct2(waiting.rest)
        moved = spectrum.moved(waiting.level, level, c)
        moved[..., : x.shape[-2], : x.shape[-1]] = 0
        rest = idct2(moved)
    return (spread(gain * x.double(), high) + rest).to(x.dtype), level


def noise_above(noise: Tensor, size: Size) -> Tensor:
    """What of a noise field [..., H, W] lies above the band of `size`: a fresh high band, float64."""
    return noise.double() - spread(band(noise, size), (noise.shape[-2], noise.shape[-1]))


def block_noise(noise: Tensor, blocks: Size, c: float) -> Tensor:
    """White noise [..., H, W] made N(0, 1 - c S), S all ones within blocks [bh, bw]: what repeated noise lacks.

    0 <= c <= 1 / n, n = bh bw. RALU's noise matching; S / n is a projection, 1 - (1 - sqrt(1 - c n)) S / n the root.
    """
    height, width = blocks
    n = height * width
    if not 0 <= c * n <= 1 + 1e-12:
        raise ValueError(f"c {c} is not in 0..1/{n}")
    shape = noise.shape
    cells = noise.reshape(*shape[:-2], shape[-2] // height, height, shape[-1] // width, width)
    mean = cells.mean((-3, -1), keepdim=True)
    return (cells - (1 - max(1 - c * n, 0.0) ** 0.5) * mean).reshape(shape)
