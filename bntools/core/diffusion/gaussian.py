"""The velocity field of Gaussian data, in closed form: what every sampler can be checked against."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bntools.core.artifact.reader import parse_json
from bntools.core.diffusion.costs import ForwardCost
from bntools.core.diffusion.field import UNSHIFTED, Clock, Field, power_law
from bntools.core.errors import bad_input, usage
from bntools.kernels.spectral.cosine import dct2, idct2, ratio
from bntools.kernels.spectral.handoff import Size, Spectrum

PREFIX = "gaussian:"
_KEYS = {"size": [16, 16], "channels": 1, "beta": 2.0, "variance": 0.25, "mean": 0.0, "shift": 3.0}


class GaussianField(Field):
    """Data with independent DCT coefficients of known mean and variance; at low resolutions their band over rho."""

    kind = "gaussian"

    def __init__(
        self, label: str, shape: tuple[int, ...], spectrum: Spectrum, clock: Clock = UNSHIFTED
    ) -> None:
        self.label, self.shape, self.spectrum, self.clock = label, shape, spectrum, clock
        self._known = spectrum

    def at(self, size: Size) -> Spectrum:
        """Mean and variance of the coefficients of data at a size."""
        rho = ratio(self.size, size)
        cut = (..., slice(size[0]), slice(size[1]))
        return Spectrum(self._known.mean[cut] / rho, self._known.variance[cut] / rho**2)

    def velocity(self, x: Tensor, t: float, rows: slice) -> Tensor:
        """v = a (x - (1 - t) m) - m with a = (t - (1 - t) S) / ((1 - t)^2 S + t^2), a coefficient at a time."""
        mean, variance = self.at((x.shape[-2], x.shape[-1]))
        if t == 0:
            return torch.zeros_like(x)
        c = dct2(x)
        slope = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2)
        return idct2(slope * (c - (1 - t) * mean) - mean).to(x.dtype)

    def cost(self, size: Size) -> ForwardCost:
        """Four products with square matrices."""
        points = size[0] * size[1]
        flops = 4.0 * self.shape[0] * points * (size[0] + size[1])
        return ForwardCost(points, flops, 0.0, 0.0, 0.0)


def open_gaussian(path: str) -> GaussianField:
    """Of a JSON file {size: [H, W], channels, beta, variance, mean, shift}: variances (1 + |k|)^-beta.

    mean: of a pixel. Raises BnError: exit 2 for a file that is not there, 3 for keys or numbers that mean nothing.
    """
    try:
        with open(path, "rb") as file:
            told = parse_json(file.read(), dict, path)
    except OSError as error:
        raise usage(
            f"cannot open {path}: {error.strerror}", 'echo \'{"size": [16, 16], "beta": 2}\' > spec.json'
        ) from None
    unknown = sorted(set(told) - set(_KEYS))
    if unknown:
        raise bad_input(f"{path}: unknown {', '.join(unknown)}", f"the keys are {', '.join(_KEYS)}")
    spec: dict[str, Any] = _KEYS | told
    size, channels = spec["size"], spec["channels"]
    whole = [channels, *size] if isinstance(size, list) and len(size) == 2 else [0]
    if not all(isinstance(n, int) and 1 <= n <= 4096 for n in whole):
        raise bad_input(f"{path}: size {size!r}, channels {channels!r}", '"size": [16, 16], "channels": 1')
    for key, least in (("beta", 0.0), ("variance", 1e-12), ("mean", -math.inf), ("shift", 1e-3)):
        if not isinstance(spec[key], int | float) or not math.isfinite(spec[key]) or spec[key] < least:
            raise bad_input(f"{path}: {key} is {spec[key]!r}, no number from {least:g} on")
    spectrum = power_law((size[0], size[1]), spec["beta"], spec["variance"])
    mean = spectrum.mean.clone()
    mean[..., 0, 0] = spec["mean"] * math.sqrt(size[0] * size[1])
    return GaussianField(
        PREFIX + path, (channels, *size), Spectrum(mean, spectrum.variance), Clock(float(spec["shift"]))
    )
