"""Bounds of Kolchinsky and Tracey on the entropy of a mixture of Gaussians, in blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_ROWS = 512


def mixture_bounds(
    points: Floats, sigmas: Sequence[float], labels: Indices | None = None
) -> tuple[Floats, Floats | None]:
    """Lower and upper bound on I(T; T + noise) for equal weights on `points` [N, D], in nats: [sigmas, 2].

    -1/N sum_i ln 1/N sum_j exp(-|h_i - h_j|^2 / (c s^2)), c = 8 below and 2 above (Kolchinsky and Tracey 2017).
    With `labels` [N] also the same within each class, averaged by the classes' sizes: I(T; T + noise | label).
    One product of blocks serves all sigmas, both bounds and all classes.
    """
    h = torch.from_numpy(np.ascontiguousarray(points - points.mean(0), np.float64))
    squares = h.square().sum(1)
    scales = torch.tensor([-1 / (c * s * s) for s in sigmas for c in (8, 2)], dtype=torch.float64)
    totals = torch.zeros(2, len(scales), dtype=torch.float64)
    classes = None if labels is None else torch.from_numpy(labels)
    sizes = None if classes is None else torch.bincount(classes).double()
    for start in range(0, len(h), _ROWS):
        stop = min(start + _ROWS, len(h))
        apart = (squares[start:stop, None] - 2 * h[start:stop] @ h.T + squares).clamp_(min=0)
        apart[torch.arange(stop - start), torch.arange(start, stop)] = 0
        same = None if classes is None else (classes[start:stop, None] == classes).double()
        for index, scale in enumerate(scales):
            near = torch.exp(apart * scale)
            totals[0, index] -= (near.sum(1) / len(h)).log().sum()
            if same is not None and classes is not None and sizes is not None:
                totals[1, index] -= ((near * same).sum(1) / sizes[classes[start:stop]]).log().sum()
    means = (totals / len(h)).numpy().reshape(2, len(sigmas), 2)
    return means[0], None if labels is None else means[1]


def mixture_bounds_reference(points: Floats, sigma: float) -> tuple[float, float]:
    """The specification of `mixture_bounds` for one sigma."""
    apart = np.square(points[:, None] - points[None]).sum(2)
    lower, upper = (
        -np.log(np.exp(-apart / (c * sigma**2)).mean(1)).mean() for c in (8, 2)
    )
    return float(lower), float(upper)
