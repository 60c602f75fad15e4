"""Lookups that training fills: from the numbers of values to the fields' vectors, and gradients back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.kernels.embedding import rows

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]
SCALE = 0.05  # standard deviation of fresh entries
LAZY = 1 << 23  # numbers of a table from which a step visits only the rows of its batch


class Lookup:
    """One flat array of float32 that all parameters are views of, with Adam's state beside it.

    size: entries of the array; widths: of the fields' vectors; stored: entries that an artifact must keep.
    """

    def __init__(self, size: int, widths: Sequence[int], stored: int, seed: int) -> None:
        self.widths, self.stored = tuple(widths), stored
        self.flat = np.random.default_rng(seed).standard_normal(size, np.float32) * np.float32(SCALE)
        self.gradient, self.mean, self.square = (np.zeros(size, np.float32) for _ in range(3))
        self.mask: Floats | None = None

    def forward(self, ids: Ids) -> Tensor:
        """x0 [B, sum of widths]."""
        raise NotImplementedError

    def backward(self, g: Tensor) -> None:
        """Add the gradient of what `forward` gave last."""
        raise NotImplementedError

    def step(self, decay: float, rate: float, step: int) -> None:
        """Adam on all entries; those outside a mask stay 0."""
        if self.mask is not None:
            self.gradient *= self.mask
        rows.adam(self.flat, self.gradient, self.mean, self.square, decay, rate, step)

    def settle(self) -> None:
        """Make up for what was put off, before the table is read as a whole."""

    def restart(self) -> None:
        """Forget Adam's state."""
        for array in (self.gradient, self.mean, self.square):
            array[:] = 0


class Chunked(Lookup):
    """Vectors of K_t chunks of c numbers each: starts[t] [values of field t, K_t] into the flat array."""

    def __init__(self, starts: list[NDArray[np.int64]], size: int, c: int, *, stored: int, seed: int) -> None:
        super().__init__(size, [s.shape[1] * c for s in starts], stored, seed)
        self.starts, self.c = [np.ascontiguousarray(s) for s in starts], c
        self._ids: Ids | None = None
        self.lazy = size >= LAZY and size % c == 0 and all((s % c == 0).all() for s in self.starts)
        self._last = np.zeros(size // c if self.lazy else 0, np.int64)
        self._done, self._factor = 0, 1.0

    def _touched(self, ids: Ids) -> NDArray[np.int64]:
        return (
            np.unique(np.concatenate([s[ids[:, t]].reshape(-1) for t, s in enumerate(self.starts)])) // self.c
        )

    def settle(self) -> None:
        if self.lazy:
            every = np.arange(len(self._last))
            rows.decay_rows(self.flat, self._last, every, self.c, self._factor, self._done)

    def step(self, decay: float, rate: float, step: int) -> None:
        if not self.lazy or self.mask is not None:
            return super().step(decay, rate, step)
        assert self._ids is not None
        touched = self._touched(self._ids)
        rows.lazy_adam(self.flat, self.gradient, self.mean, self.square, touched, self.c, decay, rate, step)
        self._last[touched] = step
        self._done, self._factor = step, 1 - rate * decay
        return None

    def forward(self, ids: Ids) -> Tensor:
        if self.lazy:
            rows.decay_rows(self.flat, self._last, self._touched(ids), self.c, self._factor, self._done)
        out, first = np.empty((len(ids), sum(self.widths)), np.float32), 0
        for t, starts in enumerate(self.starts):
            rows.gather(self.flat, starts, ids[:, t], self.c, out, first)
            first += self.widths[t]
        self._ids = ids
        return torch.from_numpy(out)

    def backward(self, g: Tensor) -> None:
        assert self._ids is not None
        array, first = g.numpy(), 0
        for t, starts in enumerate(self.starts):
            rows.scatter(self.gradient, starts, self._ids[:, t], self.c, array, first)
            first += self.widths[t]


class Composed(Lookup):
    """Vectors that torch computes from parameters of several shapes; its autograd gives the gradients."""

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], widths: Sequence[int],
        compute: Callable[[dict[str, Tensor], Tensor], Tensor], *, seed: int, stored: int | None = None,
    ) -> None:  # fmt: skip
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        total = sum(sizes.values())
        super().__init__(total, widths, total if stored is None else stored, seed)
        self.parameters: dict[str, Tensor] = {}
        self._leaves: dict[str, tuple[int, int]] = {}
        at = 0
        for name, shape in shapes.items():
            self.parameters[name] = torch.from_numpy(self.flat[at : at + sizes[name]]).view(shape)
            self._leaves[name] = (at, at + sizes[name])
            at += sizes[name]
        self._compute, self._kept = compute, (None, None)

    def forward(self, ids: Ids) -> Tensor:
        leaves = {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        with torch.enable_grad():
            out = self._compute(leaves, torch.from_numpy(ids.astype(np.int64)))
        self._kept: Any = (leaves, out)
        return out.detach()

    def backward(self, g: Tensor) -> None:
        leaves, out = self._kept
        gradients = torch.autograd.grad(out, list(leaves.values()), g, allow_unused=True)
        for (start, stop), gradient in zip(self._leaves.values(), gradients, strict=True):
            if gradient is not None:
                self.gradient[start:stop] += gradient.reshape(-1).numpy()
