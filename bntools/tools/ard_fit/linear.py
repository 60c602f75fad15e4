"""Linear models in closed form: principal components, Minka's evidence, Bayesian PCA, and the linear autoencoder."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.methods.vae.network import Architecture, Autoencoder

Floats = NDArray[np.float64]

_PASSES = 20_000
_DEAD = 1e-6
"""Share of the noise below which a component's squared weight counts as 0."""
_ZERO = 1e-10


class Spectrum(NamedTuple):
    """Eigenvalues [m] of a covariance, descending, their vectors [D, m] as columns, and the rows it was taken from."""

    values: Floats
    vectors: Floats
    rows: int


class Bayesian(NamedTuple):
    """Bayesian PCA: squared weights [q] of the components, 0 where a component is pruned, and the noise variance."""

    weights: Floats
    noise: float

    @property
    def count(self) -> int:
        return int((self.weights > 0).sum())


def spectrum_of(covariance: Floats | None, rows: int, sample: Floats) -> Spectrum:
    """Of a covariance [D, D], or of rows [n, D] where there is none."""
    if covariance is not None:
        values, vectors = np.linalg.eigh(covariance)
        return Spectrum(np.maximum(values[::-1], 0), vectors[:, ::-1], rows)
    centred = (sample - sample.mean(0)) / np.sqrt(len(sample))
    _, roots, vectors = np.linalg.svd(centred, full_matrices=False)
    return Spectrum(roots**2, vectors.T, len(sample))


def explained_count(values: Floats, share: float) -> int:
    """Principal components that reach this share of the variance."""
    total = np.cumsum(values)
    return int(np.searchsorted(total, share * total[-1])) + 1


def minka(values: Floats, rows: int) -> int:
    """Dimension of largest Laplace evidence (Minka 2000, eq. 76 to 78), among 1 to one less than the eigenvalues.

    Deviation: where rows are fewer than columns the eigenvalues that are 0 for that reason are left out.
    """
    values = values[values > _ZERO * values[0]][: max(rows - 1, 1)]
    if len(values) < 2:
        return len(values)
    return 1 + int(np.argmax([_evidence(values, k, rows) for k in range(1, len(values))]))


def _evidence(values: Floats, k: int, rows: int) -> float:
    d, noise = len(values), float(values[k:].mean())
    sizes = (d - np.arange(k)) / 2
    log_prior = -k * math.log(2) + sum(math.lgamma(a) - a * math.log(math.pi) for a in sizes)
    free = d * k - k * (k + 1) / 2
    smoothed = np.concatenate([values[:k], np.full(d - k, noise)])
    hessian = 0.0
    for i in range(k):
        j = np.arange(i + 1, d)
        gap = (1 / smoothed[j] - 1 / smoothed[i]) * (values[i] - values[j]) * rows
        hessian += float(np.log(np.maximum(gap, 1e-300)).sum())
    likelihood = -rows / 2 * (np.log(values[:k]).sum() + (d - k) * math.log(noise))
    volume = (free + k) / 2 * math.log(2 * math.pi) - hessian / 2 - k / 2 * math.log(rows)
    return log_prior + likelihood + volume


def bayesian(values: Floats, columns: int, rows: int, most: int) -> Bayesian:
    """Bayesian PCA (Bishop 1999): alpha_l = D / |w_l|^2, by EM, with `most` components at the start.

    From the principal axes EM never leaves them, so each component is a number: w^2 and one common noise variance.
    """
    count = min(most, len(values), columns - 1) if columns > 1 else 0
    top, total = values[:count], float(values.sum())
    noise = max((total - float(top.sum())) / max(columns - count, 1), _ZERO * total / columns)
    w = np.maximum(top - noise, 0.1 * noise)
    for _ in range(_PASSES):
        m = w + noise
        cross = top * np.sqrt(w) / m  # x z, of unit axes
        second = noise / m + top * w / m**2  # z^2
        root = cross / (second + noise * columns / (np.maximum(w, _DEAD * _DEAD * noise) * rows))
        fresh = np.where(w > _DEAD * noise, root**2, 0.0)
        root = np.sqrt(fresh)
        residual = (total + float((root**2 * second - 2 * root * cross).sum())) / columns
        change = np.abs(fresh - w).max(initial=0.0)
        w, noise = fresh, max(residual, _ZERO * total / columns)
        if change < 1e-9 * max(float(w.max(initial=0.0)), noise):
            break
    return Bayesian(np.where(w > _DEAD * noise, w, 0.0), noise)


def autoencoder(spectrum: Spectrum, weights: Floats, noise: float, dim: int) -> Autoencoder:
    """The linear autoencoder of a probabilistic PCA with these squared weights: x = W z, prior N(0, 1).

    Posterior: mean w / (w^2 + noise) v^T x, variance noise / (w^2 + noise); axes without weight are dead.
    """
    columns = len(spectrum.vectors)
    net = Autoencoder(Architecture("linear", (columns,), dim, ()))
    w2 = np.zeros(dim)
    w2[: len(weights)] = weights
    axes = np.zeros((columns, dim))
    width = min(dim, spectrum.vectors.shape[1])
    axes[:, :width] = spectrum.vectors[:, :width]
    root, total = np.sqrt(w2), w2 + noise
    with torch.no_grad():
        net.to_mean.weight.copy_(torch.from_numpy((axes * root / total).T))
        net.to_log_variance.weight.zero_()
        net.to_log_variance.bias.copy_(torch.from_numpy(np.log(noise / total)))
        net.first.weight.copy_(torch.from_numpy(axes * root))
        net.to_mean.bias.zero_()
        net.first.bias.zero_()
    return net.eval()
