"""Hidden states of many windows: in memory, or in a temporary file where they are large."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from bntools.core.artifact import streams
from bntools.core.errors import BnError
from bntools.core.work.folder import Work

RESIDENT = 512 << 20  # bytes of hidden states up to which they stay in memory


class States:
    """A tensor [n, L, d] written and read by ranges of its first axis.

    Above `resident` bytes it lies in an unlinked file under TMPDIR, moved by positioned reads and writes: a memory
    map's pages would count as memory of the process. Raises BnError (exit 1) where the disk is full.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, resident: int = RESIDENT) -> None:
        self.shape, self.dtype = shape, dtype
        self._row = math.prod(shape[1:]) * dtype.itemsize
        self._memory: Tensor | None = None
        self._fd = -1
        if shape[0] * self._row <= resident:
            self._memory = torch.empty(shape, dtype=dtype)
        else:
            self._fd = streams.temporary_fd()

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self._row

    def put(self, start: int, values: Tensor) -> None:
        """Write `values` [m, L, d] at windows start..start + m."""
        plain = values.detach().to("cpu", self.dtype).contiguous()
        if self._memory is not None:
            self._memory[start : start + len(plain)] = plain
            return
        view = memoryview(plain.reshape(-1).view(torch.uint8).numpy())
        position = start * self._row
        while view:
            try:
                done = os.pwrite(self._fd, view[: 1 << 30], position)
            except OSError as error:
                raise BnError(
                    f"cannot keep {self.nbytes / 1e9:.1f} GB of hidden states: {error.strerror}",
                    "set TMPDIR to a larger disk, or use fewer --calib-tokens",
                ) from None
            view, position = view[done:], position + done

    def get(self, start: int, stop: int) -> Tensor:
        """Windows start..stop as a tensor of their own."""
        if self._memory is not None:
            return self._memory[start:stop].clone()
        result = torch.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        view = memoryview(result.reshape(-1).view(torch.uint8).numpy())
        position = start * self._row
        while view:
            done = os.preadv(self._fd, [view[: 1 << 30]], position)
            if not done:
                raise ValueError(f"windows {start}..{stop} were never written")
            view, position = view[done:], position + done
        return result

    def save(self, work: Work, unit: str) -> None:
        """Keep them as a unit of a --work folder."""
        work.save_each(unit, ((str(at), self.get(at, at + 1)) for at in range(self.shape[0])))

    @classmethod
    def load(cls, work: Work, unit: str) -> States:
        """As `save` left them."""
        source, _ = work.load(unit)
        with source:
            names = source.names()
            first = source.tensor(names[0])
            states = cls((len(names), *first.shape[1:]), first.dtype)
            for name in names:
                states.put(int(name), source.tensor(name))
        return states

    def close(self) -> None:
        """Give the memory or the disk space back."""
        self._memory = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()
