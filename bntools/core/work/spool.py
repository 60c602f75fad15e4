"""Arrays that wait on disk for a later phase of the work, by name, in an unlinked temporary file."""

from __future__ import annotations

import os
import threading

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact import streams
from bntools.core.errors import BnError

Array = NDArray[np.generic]


class Spool:
    """Groups of arrays written once and read at any time; several threads may use it.

    Raises BnError (exit 1) where the disk is full. The file is gone when the process is.
    """

    def __init__(self) -> None:
        self._fd = streams.temporary_fd()
        self._size = 0
        self._places: dict[str, list[tuple[int, tuple[int, ...], str]]] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def close(self) -> None:
        os.close(self._fd)

    def put(self, name: str, arrays: list[Array]) -> None:
        """Keep arrays under a name; an earlier group of that name is forgotten."""
        places = []
        for array in arrays:
            plain = np.ascontiguousarray(array)
            with self._lock:
                position, self._size = self._size, self._size + plain.nbytes
            self._write(plain.reshape(-1).view(np.uint8).data, position)
            places.append((position, array.shape, plain.dtype.str))
        self._places[name] = places

    def _write(self, view: memoryview, position: int) -> None:
        while view:
            try:
                done = os.pwrite(self._fd, view[: 1 << 30], position)
            except OSError as error:
                raise BnError(
                    f"cannot keep {self._size / 1e9:.1f} GB of intermediate results: {error.strerror}",
                    "set TMPDIR to a larger disk",
                ) from None
            view, position = view[done:], position + done

    def get(self, name: str) -> list[Array]:
        """The arrays kept under a name, in memory of their own."""
        arrays = []
        for position, shape, dtype in self._places[name]:
            array = np.empty(shape, dtype=dtype)
            view = array.reshape(-1).view(np.uint8).data
            while view:
                got = os.preadv(self._fd, [view[: 1 << 30]], position)
                view, position = view[got:], position + got
            arrays.append(array)
        return arrays
