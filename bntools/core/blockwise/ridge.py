"""Least squares with a ridge that is chosen by what fits the other half of the data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from bntools.core.blockwise.second_moments import InputMoments, Task, products
from bntools.core.system.threads import single_threaded

RIDGES = (0.02, 0.1, 0.5, 2.5, 12.5)  # of the mean of the diagonal
_PROBES = 64  # random sums of the outputs, where there are more outputs, to compare ridges by


class Regression:
    """Y = S X for inputs x [in] and wanted outputs y [out], summed batch by batch in two halves.

    Of RIDGES the one is taken whose fit to either half errs least on the other, halved for the whole, since the noise
    it stands against is; S is 0 where no fit helps. mixed: products in bfloat16.
    """

    def __init__(
        self, inputs: int, outputs: int, device: torch.device | str = "cpu", mixed: bool = False
    ) -> None:
        self._factors = torch.bfloat16 if mixed else torch.float32
        self._x = [InputMoments(inputs, device, self._factors) for _ in range(2)]
        self._xy = [torch.zeros(outputs, inputs, device=device) for _ in range(2)]

    def tasks(self, half: int, x: Tensor, y: Tensor) -> list[Task]:
        """Products that add x [n, in] and y [n, out] to a half, 0 or 1."""
        return [*self._x[half].tasks(x), *products(self._xy[half], y, x, self._factors)]

    def solve(self, root: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(S [out, in], E[x x^T] [in, in]). root: [any, out], of which root e is what an error e of the outputs does;
        else all outputs count alike."""
        counts = [half.tokens for half in self._x]
        xy = [total / max(count, 1) for total, count in zip(self._xy, counts, strict=True)]
        self._xy.clear()
        xx = [half.mean() for half in self._x]
        share = counts[0] / max(sum(counts), 1)
        whole = xx[0] * share + xx[1] * (1 - share), xy[0] * share + xy[1] * (1 - share)
        with single_threaded() as (pool, _):
            ridge = self._best(pool, xx, _probed(xy, root)) if min(counts) else 2 * RIDGES[-1]
            solved = torch.zeros_like(whole[1]) if ridge is None else _fit(*whole, ridge / 2)
        return solved, whole[0]

    def _best(self, pool: ThreadPoolExecutor, xx: list[Tensor], xy: list[Tensor]) -> float | None:
        def error(job: tuple[float, int]) -> float:
            ridge, one = job
            fit = _fit(xx[one], xy[one], ridge)
            return float((fit * (fit @ xx[1 - one] - 2 * xy[1 - one])).sum(dtype=torch.float64))

        errors = list(pool.map(error, [(ridge, one) for ridge in RIDGES for one in (0, 1)]))
        totals = {sum(errors[2 * at : 2 * at + 2]): ridge for at, ridge in enumerate(RIDGES)}
        return totals[min(totals)] if min(totals) < 0 else None


def _probed(xy: list[Tensor], root: Tensor | None) -> list[Tensor]:
    """Moments with what errors do; with random sums of that, whose squares have the same mean, where it is much."""
    count = xy[0].shape[0] if root is None else root.shape[0]
    if count > _PROBES:
        signs = torch.randint(0, 2, (_PROBES, count), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        signs = (signs / _PROBES**0.5).to(xy[0])
        root = signs if root is None else signs @ root
    return xy if root is None else [root @ one for one in xy]


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
