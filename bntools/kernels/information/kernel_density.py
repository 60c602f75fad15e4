"""Bounds of Kolchinsky and Tracey on the entropy of a mixture of Gaussians, in blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_ROWS = 512


def mixture_terms(
    points: Floats, sigmas: Sequence[float], rows: Indices, labels: Indices | None = None
) -> tuple[Floats, Floats | None]:
    """The terms of `mixture_bounds` of some rows: [sigmas, 2, M], and those within each row's class.

    Their mean over random rows is unbiased for that over all. 2 M N D operations and 2 M N exponentials a sigma.
    """
    h = torch.from_numpy(np.ascontiguousarray(points - points.mean(0), np.float64))
    squares = h.square().sum(1)
    scales = [-1 / (c * s * s) for s in sigmas for c in (8, 2)]
    classes = None if labels is None else torch.from_numpy(labels)
    sizes = None if classes is None else torch.bincount(classes).double()
    chosen = torch.from_numpy(np.asarray(rows, np.int64))
    whole = torch.empty(len(scales), len(rows), dtype=torch.float64)
    within = torch.empty_like(whole)
    for start in range(0, len(rows), _ROWS):
        part = chosen[start : start + _ROWS]
        stop = start + len(part)
        apart = (squares[part, None] - 2 * h[part] @ h.T + squares).clamp_(min=0)
        apart[torch.arange(len(part)), part] = 0
        same = None if classes is None else (classes[part, None] == classes).double()
        for index, scale in enumerate(scales):
            near = torch.exp(apart * scale)
            whole[index, start:stop] = -(near.sum(1) / len(h)).log()
            if same is not None and classes is not None and sizes is not None:
                within[index, start:stop] = -((near * same).sum(1) / sizes[classes[part]]).log()
    shape = (len(sigmas), 2, len(rows))
    return whole.numpy().reshape(shape), None if labels is None else within.numpy().reshape(shape)


def mixture_bounds(
    points: Floats, sigmas: Sequence[float], labels: Indices | None = None
) -> tuple[Floats, Floats | None]:
    """Lower and upper bound on I(T; T + noise) for equal weights on `points` [N, D], in nats: [sigmas, 2].

    -1/N sum_i ln 1/N sum_j exp(-|h_i - h_j|^2 / (c s^2)), c = 8 below and 2 above (Kolchinsky and Tracey 2017).
    With `labels` [N] also the same within each class, averaged by the classes' sizes: I(T; T + noise | label).
    One product of blocks serves all sigmas, both bounds and all classes.
    """
    whole, within = mixture_terms(points, sigmas, np.arange(len(points)), labels)
    return whole.mean(2), None if within is None else within.mean(2)


def mixture_bounds_reference(points: Floats, sigma: float) -> tuple[float, float]:
    """The specification of `mixture_bounds` for one sigma."""
    apart = np.square(points[:, None] - points[None]).sum(2)
    lower, upper = (-np.log(np.exp(-apart / (c * sigma**2)).mean(1)).mean() for c in (8, 2))
    return float(lower), float(upper)
