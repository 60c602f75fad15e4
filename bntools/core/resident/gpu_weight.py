"""A stacked weight in a GPU's memory, multiplied there as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from bntools.core.packing import stack
from bntools.core.resident.layers import FEW
from bntools.kernels.grouped.operations import GPU_BLOCK
from bntools.kernels.stack import weight_gpu as stack_weight_gpu


class DeviceWeight:
    """What `stacked_modules.Weight` is on a CPU; of the base only the order of its rows stays in main memory."""

    def __init__(self, base: stack.Base, planes: stack.Planes, device: torch.device) -> None:
        self.shape = base.shape
        self._ranks = base.ranks
        self.kernel = stack_weight_gpu.to(base.with_planes(planes.compact()), device)

    def change(self, planes: stack.Planes) -> None:
        """Have these planes, and no others; they are what is copied."""
        there = planes.compact()
        first, depth = there.first[self._ranks], there.depth[self._ranks]
        self.kernel = stack_weight_gpu.with_planes(
            self.kernel, there.bits, first, there.stride, depth, there.trellis
        )

    @property
    def nbytes(self) -> int:
        """Bytes in memory, all of them."""
        return self.kernel.nbytes + self._ranks.nbytes

    def rows(self, which: Tensor) -> Tensor:
        """Some rows [n, in] in float32, on the device."""
        words = self.kernel.words
        with torch.cuda.device_of(words):  # which triton launches on
            return stack_weight_gpu.rows(self.kernel, which.to(words.device))

    def look_up(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows [*ids, in] in `dtype`; those asked for twice are made twice, as to find them the host would wait."""
        return self.rows(ids.flatten()).to(dtype).reshape(*ids.shape, self.shape[1])

    def times(self, x: Tensor) -> Tensor:
        """y [n, out] = x W^T of x [n, in] float32; each row of W is made once for many x, never for few."""
        if len(x) <= FEW:
            with torch.cuda.device_of(x):
                return stack_weight_gpu.product(self.kernel, x)
        y, size = x.new_empty(len(x), self.shape[0]), max(1, GPU_BLOCK // self.shape[1])
        for start in range(0, self.shape[0], size):
            stop = min(start + size, self.shape[0])
            y[:, start:stop] = x @ self.rows(torch.arange(start, stop, device=x.device)).T
        return y
