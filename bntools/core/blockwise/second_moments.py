"""Second moments of the inputs of linears, summed batch by batch, by row panels of the symmetric matrix."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_PANELS = 16  # a wide matrix is cut into about as many; the products saved by symmetry are then 7 of 16
_NARROWEST = 256  # rows of a panel: fewer leave the product short of work

Task = tuple[Tensor, Tensor, Tensor]  # a panel of a sum, and the factors whose product is added to it


class InputMoments:
    """The sum over tokens of w_t x_t x_t^T for inputs x [d], in float32; `mean` divides by the tokens.

    factors: what x and the products of a batch are rounded to. With bfloat16 an element is off by 3e-4 of itself after
    16 batches, which is nothing beside a damping or a ridge of a hundredth of the mean diagonal: what an input
    thousands of times as loud is off by is divided by its own moment where its column is eliminated.
    """

    def __init__(
        self, width: int, device: torch.device | str = "cpu", factors: torch.dtype = torch.float32
    ) -> None:
        self._factors, self._lock = factors, threading.Lock()
        self.sum = torch.zeros(width, width, device=device)
        self.tokens = 0

    def tasks(self, x: Tensor, weights: Tensor | None = None) -> list[Task]:
        """Independent products that add x [n, d] weighted by `weights` [n].

        Only the upper triangle is summed. The panels depend on d alone.
        """
        with self._lock:  # batches come from several threads
            self.tokens += len(x)
        right = (x if weights is None else x * weights[:, None]).to(self._factors)
        x = x.to(self._factors)
        width = x.shape[1]
        rows = max(_NARROWEST, -(-width // _PANELS))
        return [
            (self.sum[start : start + rows, start:], x[:, start : start + rows].T, right[:, start:])
            for start in range(0, width, rows)
        ]

    def mean(self) -> Tensor:
        """[d, d] float32, both triangles. The sum is used up."""
        total, self.sum = self.sum, self.sum[:0]
        upper = total.triu_()
        upper.div_(max(self.tokens, 1))
        rows = max(_NARROWEST, -(-len(upper) // _PANELS))
        for start in range(0, len(upper), rows):  # the mirror image by panels: no second matrix
            stop = start + rows
            panel = upper[start:stop]
            panel[:, :start] = upper[:start, start:stop].T
            square = panel[:, start:stop]
            square.add_(square.triu(1).T)
        return upper


def products(total: Tensor, left: Tensor, right: Tensor, factors: torch.dtype = torch.float32) -> list[Task]:
    """Independent products that add left^T right to `total` [a, b]; left [n, a], right [n, b], rounded to `factors`."""
    left, right = left.to(factors), right.to(factors)
    rows = max(_NARROWEST, -(-total.shape[0] // _PANELS))
    return [
        (total[start : start + rows], left[:, start : start + rows].T, right)
        for start in range(0, total.shape[0], rows)
    ]


def accumulate(pool: ThreadPoolExecutor, batches: Iterable[list[Task]]) -> None:
    """Add the tasks of several batches: panels in parallel, the batches of one panel in order."""
    by_panel: dict[tuple[int, int], list[Task]] = {}
    for tasks in batches:
        for task in tasks:
            by_panel.setdefault((task[0].data_ptr(), task[0].shape[0]), []).append(task)
    largest = sorted(by_panel.values(), key=lambda tasks: -tasks[0][0].numel())
    list(pool.map(_add, largest))


def _add(tasks: list[Task]) -> None:
    for panel, left, right in tasks:
        if left.dtype is panel.dtype:
            panel.addmm_(left, right)
        else:
            panel.add_(left @ right)
