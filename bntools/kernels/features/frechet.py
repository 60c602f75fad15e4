"""The Fréchet distance of two sets of features, each seen as a Gaussian, and what it is between equal sources."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Floor(NamedTuple):
    """Fréchet distance between two sets of one source: its mean over draws, the standard error, rows a set."""

    mean: float
    se: float
    rows: int


def frechet(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Squared Fréchet distance of the Gaussians with the moments of a [N, k] and b [M, k], two rows each at least.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))   (Dowson and Landau 1982; as FID: Heusel et al. 2017)
    With C = R^T R the trace of the root is the sum of the singular values of R_a R_b^T: no root of a matrix that may
    be singular, so N near or under k is as stable as any. Deviation from FID's usual code: no multiple of 1 is added.
    The expectation depends on N and M (a finite set looks farther): compare equal counts, beside the `floor`.
    """
    mean_a, root_a = _moments(a)
    mean_b, root_b = _moments(b)
    if root_a.shape[1] != root_b.shape[1]:
        raise ValueError(f"{root_a.shape[1]} and {root_b.shape[1]} features")
    common = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = (root_a**2).sum() + (root_b**2).sum() - 2 * common
    return float(max(((mean_a - mean_b) ** 2).sum() + spread, 0.0))


def floor(real: NDArray[Any], rows: int, draws: int = 8, seed: int = 0) -> Floor:
    """The distance between disjoint sets of `rows` real features each, drawn from real [N, k].

    What a perfect sampler would get, on average, against as many real rows. Where N < 2 rows, sets of N // 2 are
    drawn, and `rows` of the result says so: the floor of larger sets is lower.
    """
    rows = min(rows, len(real) // 2)
    if rows < 2:
        raise ValueError(f"{len(real)} rows have no two halves")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        order = rng.permutation(len(real))
        values.append(frechet(real[order[:rows]], real[order[rows : 2 * rows]]))
    se = float(np.std(values, ddof=1) / np.sqrt(draws)) if draws > 1 else float("nan")
    return Floor(float(np.mean(values)), se, rows)


def _moments(x: NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean [k] and a root R [min(N, k), k] of the covariance, R^T R = C, with N - 1 as divisor."""
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"an array of shape {x.shape} is no set of features")
    mean = x.mean(0)
    root: Floats = np.asarray(np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r"))
    return mean, root
