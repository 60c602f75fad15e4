"""Information from kernel matrices that are never held whole: Cauchy-Schwarz and matrix-based Renyi."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROWS = 512


def median_distance(points: Floats, most: int = 2000) -> float:
    """Median distance between different points, of the first `most` rows: the usual width of a Gaussian kernel."""
    part = points[:most]
    squares = np.square(part).sum(1)
    apart = squares[:, None] - 2 * part @ part.T + squares
    distances = np.sqrt(np.maximum(apart[np.triu_indices(len(part), 1)], 0))
    return float(np.median(distances)) or float(distances.mean()) or 1.0


def cauchy_schwarz_information(x: Floats, y: Floats, widths: tuple[float, float]) -> float:
    """Cauchy-Schwarz divergence of the joint from the product of the marginals, in nats; 0 if independent.

    ln mean(K Q) + ln(mean K mean Q) - 2 ln mean_i(K1_i Q1_i), K and Q Gaussian kernels exp(-d^2 / (2 h^2)) of the
    given widths h (Yu et al. 2024, section 3.3). Memory: 512 rows of each matrix.
    """
    n = len(x)
    product, cross, sums = 0.0, 0.0, np.zeros(2)
    for start in range(0, n, _ROWS):
        k = gaussian_rows(x, start, widths[0])
        q = gaussian_rows(y, start, widths[1])
        product += float(np.einsum("ij,ij->", k, q))
        rows = k.sum(1), q.sum(1)
        cross += float(rows[0] @ rows[1])
        sums += rows[0].sum(), rows[1].sum()
    return float(np.log(product / n**2) + np.log(sums[0] / n**2 * sums[1] / n**2) - 2 * np.log(cross / n**3))


def gaussian_rows(points: Floats, start: int, width: float) -> Floats:
    """Rows [start, start + 512) of the Gaussian kernel matrix of points [N, D]."""
    part = points[start : start + _ROWS]
    apart = np.square(part).sum(1)[:, None] - 2 * part @ points.T + np.square(points).sum(1)
    return np.exp(np.maximum(apart, 0) / (-2 * width**2))


def cauchy_schwarz_reference(x: Floats, y: Floats, widths: tuple[float, float]) -> float:
    """The specification of `cauchy_schwarz_information`."""
    k, q = (
        np.exp(-np.square(part[:, None] - part[None]).sum(2) / (2 * width**2))
        for part, width in zip((x, y), widths, strict=True)
    )
    return float(
        np.log((k * q).mean()) + np.log(k.mean() * q.mean()) - 2 * np.log((k.mean(1) * q.mean(1)).mean())
    )


def renyi_information(x: Floats, y: Floats, widths: tuple[float, float], order: float = 1.01) -> float:
    """Matrix-based Renyi information S(A) + S(B) - S(A o B / tr) of at most some thousand points, in nats.

    S(A) = ln(sum_i l_i^a) / (1 - a) over the eigenvalues of a kernel matrix of trace one (Sanchez Giraldo et al. 2015).
    """
    k, q = (
        np.concatenate([gaussian_rows(part, start, width) for start in range(0, len(part), _ROWS)])
        for part, width in zip((x, y), widths, strict=True)
    )
    entropies = []
    for matrix in (k, q, k * q):
        values = np.maximum(np.linalg.eigvalsh(matrix / len(matrix)), 0)
        entropies.append(np.log((values**order).sum()) / (1 - order))
    return float(entropies[0] + entropies[1] - entropies[2])
