"""From a wide layer to a few coordinates that neighbours can be counted in: principal axes, random ones, a network.

Whatever the way, a function of T tells no more of X than T does: figures are lower bounds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the other ways need no torch
    import torch

    from bntools.core.methods.vae.network import Autoencoder

Floats = NDArray[np.float64]
WAYS = ("pca", "random", "autoencoder")
_STEPS, _BATCH, _PEAK = 3000, 256, 2e-3
_INITIALIZING = threading.Lock()  # torch draws weights from one generator


class Code(Protocol):
    """Coordinates of a layer whose activations carry white noise."""

    def noisy(self, sigma: float) -> Floats:
        """[N, K] with noise of this size; the same draws for every size."""
        ...

    def loss(self, sigma: float) -> float:
        """What is left out may tell at most so many nats beside; NaN where no bound is known."""
        ...


class Axes:
    """The first principal axes; white noise is white on every axis, so only that on the kept ones is drawn."""

    def __init__(self, coordinates: Floats, variances: Floats, rng: np.random.Generator) -> None:
        self.coordinates, self.rest = coordinates, variances[coordinates.shape[1] :]
        self.noise = rng.standard_normal(coordinates.shape)

    def noisy(self, sigma: float) -> Floats:
        return self.coordinates + sigma * self.noise

    def loss(self, sigma: float) -> float:
        """sum 1/2 ln(1 + l_i / s^2) over the variances l_i left out: a normal has the most entropy."""
        return float(0.5 * np.log1p(self.rest / sigma**2).sum())


class RandomAxes:
    """Orthonormal axes drawn without a look at the data."""

    def __init__(self, h: Floats, variances: Floats, width: int, rng: np.random.Generator) -> None:
        axes = np.linalg.qr(rng.standard_normal((h.shape[1], min(width, h.shape[1]))))[0]
        self.coordinates, self.variances = (h - h.mean(0)) @ axes, variances
        self.noise = rng.standard_normal(self.coordinates.shape)

    def noisy(self, sigma: float) -> Floats:
        return self.coordinates + sigma * self.noise

    def loss(self, sigma: float) -> float:
        """ln det(1 + C / s^2) / 2 of all coordinates less that of the kept ones: what a normal rest would tell."""
        kept = np.linalg.eigvalsh(np.atleast_2d(np.cov(self.coordinates.T, bias=True)))
        every = np.log1p(self.variances / sigma**2).sum()
        return float(0.5 * max(every - np.log1p(np.maximum(kept, 0) / sigma**2).sum(), 0.0))


class Encoded:
    """The code of an autoencoder with a narrow middle, trained on the activations without noise."""

    def __init__(self, h: Floats, width: int, rng: np.random.Generator) -> None:
        self.h, self.rng_seed = h, int(rng.integers(1 << 31))
        self.centre, self.scale = h.mean(0), float(h.std()) or 1.0
        self.network = autoencoder(self._standard(h), width, self.rng_seed)

    def noisy(self, sigma: float) -> Floats:
        noise = np.random.default_rng(self.rng_seed).standard_normal(self.h.shape)
        return encode(self.network, self._standard(self.h + sigma * noise))

    def loss(self, sigma: float) -> float:
        return float("nan")

    def _standard(self, h: Floats) -> torch.Tensor:
        import torch

        return torch.from_numpy(((h - self.centre) / self.scale).astype(np.float32))


def autoencoder(x: torch.Tensor, width: int, seed: int) -> Autoencoder:
    """A perceptron autoencoder of x [N, D] with `width` numbers in the middle, for the least squared error."""
    import torch

    from bntools.core.methods.vae.network import Architecture, Autoencoder, hidden_units
    from bntools.core.training.loop import Schedule, descend

    arch = Architecture("mlp", (x.shape[1],), width, hidden_units("mlp", (x.shape[1],)))
    with _INITIALIZING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Autoencoder(arch)
    network.to_log_variance.requires_grad_(False)
    parameters = [p for p in network.parameters() if p.requires_grad]

    def loss(batch: torch.Tensor) -> torch.Tensor:
        return (network.decode(network.encode(batch)[0]) - batch).square().mean()

    with torch.enable_grad():
        descend(parameters, _batches(x, seed), loss, Schedule(_STEPS, _PEAK))
    return network.eval()


def encode(network: Autoencoder, x: torch.Tensor) -> Floats:
    """Codes [N, K] of x [N, D]."""
    import torch

    with torch.no_grad():
        return torch.cat([network.encode(part)[0] for part in x.split(8192)]).numpy().astype(np.float64)


def _batches(x: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    import torch

    rng, size = np.random.default_rng(seed), min(_BATCH, len(x))
    for _ in range(_STEPS):
        yield x[torch.from_numpy(rng.integers(0, len(x), size))]
