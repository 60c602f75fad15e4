"""Least squares with a ridge that is chosen by what fits the other half of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from bntools.core.moments import Moments, Task, products

RIDGES = (0.02, 0.1, 0.5, 2.5, 12.5)  # of the mean of the diagonal


class Regression:
    """Y = S X for inputs x [in] and wanted outputs y [out], summed batch by batch in two halves.

    Of RIDGES the one is taken whose fit to either half errs least on the other, halved for the whole, since the noise
    it stands against is; S is 0 where no fit helps.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu") -> None:
        self._x = [Moments(inputs, device) for _ in range(2)]
        self._xy = [torch.zeros(outputs, inputs, device=device) for _ in range(2)]

    def tasks(self, half: int, x: Tensor, y: Tensor) -> list[Task]:
        """Products that add x [n, in] and y [n, out] to a half, 0 or 1."""
        return [*self._x[half].tasks(x), *products(self._xy[half], y, x)]

    def solve(self, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(S [out, in], E[x x^T] [in, in]). metric: [out, out] of the errors, else all outputs count alike."""
        counts = [half.tokens for half in self._x]
        xy = [total / max(count, 1) for total, count in zip(self._xy, counts, strict=True)]
        self._xy.clear()
        xx = [half.mean() for half in self._x]
        share = counts[0] / max(sum(counts), 1)
        whole = xx[0] * share + xx[1] * (1 - share), xy[0] * share + xy[1] * (1 - share)
        if min(counts) == 0:
            return _fit(*whole, RIDGES[-1]), whole[0]
        ridge = self._best(xx, xy, metric)
        return torch.zeros_like(whole[1]) if ridge is None else _fit(*whole, ridge / 2), whole[0]

    def _best(self, xx: list[Tensor], xy: list[Tensor], metric: Tensor | None) -> float | None:
        best, lowest = None, 0.0
        for ridge in RIDGES:
            errors = 0.0
            for one, other in ((0, 1), (1, 0)):
                fit = _fit(xx[one], xy[one], ridge)
                weighted = fit if metric is None else metric @ fit
                errors += float((weighted * (fit @ xx[other] - 2 * xy[other])).sum(dtype=torch.float64))
            if errors < lowest:
                best, lowest = ridge, errors
        return best


def _fit(xx: Tensor, xy: Tensor, ridge: float) -> Tensor:
    """xy (xx + ridge)^-1, the ridge growing tenfold while there is no such inverse."""
    mean = float(xx.diagonal().mean()) or 1.0
    while True:
        ridged = xx.clone()
        ridged.diagonal().add_(ridge * mean)
        lower, failed = torch.linalg.cholesky_ex(ridged)
        if not failed:
            return torch.cholesky_solve(xy.T, lower).T
        ridge *= 10
