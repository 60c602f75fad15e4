"""Information that a covariance holds: log-determinants without the bias of the sample, and spectral entropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.information.nearest_neighbour import digamma

Floats = NDArray[np.float64]


def log_determinant(covariance: Floats, freedom: int) -> float:
    """ln det of the true covariance, unbiased: `covariance` [P, P] is a sample's, of `freedom` degrees of freedom.

    A Wishart matrix W / m has E ln det = ln det S + sum_i psi((m - i) / 2) + P ln(2 / m), i from 0 to P - 1.
    """
    size = len(covariance)
    excess = digamma((freedom - np.arange(size)) / 2) + np.log(2 / freedom)
    return float(np.linalg.slogdet(covariance)[1] - excess.sum())


def gaussian_information(covariance: Floats, width: int, freedom: int) -> float:
    """Mutual information of the first `width` coordinates with the others were they normal, in nats."""
    first, second = covariance[:width, :width], covariance[width:, width:]
    parts = [log_determinant(part, freedom) for part in (first, second, covariance)]
    return (parts[0] + parts[1] - parts[2]) / 2


def canonical(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Both parts turned to canonical coordinates of unit variance, and the canonical correlations, descending.

    Directions without variance (1e-6 of the largest standard deviation) are left out. No information is lost.
    """
    white = []
    for part in (x, y):
        centred = part - part.mean(0)
        values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
        real = values > values[-1] * 1e-12
        white.append(centred @ (vectors[:, real] / np.sqrt(values[real])))
    left, correlations, right = np.linalg.svd(white[0].T @ white[1] / len(x))
    return white[0] @ left, white[1] @ right.T, correlations


def spectral_entropy(x: Floats) -> float:
    """Von Neumann entropy of the covariance over its trace, in nats; its exponential is the effective rank."""
    centred = x - x.mean(0)
    gram = centred.T @ centred if x.shape[1] <= len(x) else centred @ centred.T
    values = np.maximum(np.linalg.eigvalsh(gram), 0)
    if values.sum() == 0:
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(-(shares * np.log(shares)).sum())
