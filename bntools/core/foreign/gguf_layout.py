"""Whether the counts and lengths in a GGUF file can be: walked before its reader believes them and asks for memory.

The layout is ggml's (docs/gguf.md of its repository): magic, version, number of tensors and of key-value pairs, the
pairs, the descriptions of the tensors, their data.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Any

from bntools.core.errors import BnError, bad_input

_WIDTH = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY = 8, 9
_MOST_AXES = 8
_DEEPEST = 4  # arrays in arrays


def check(path: Path, block_sizes: dict[Any, tuple[int, int]]) -> None:
    """Raises BnError (exit 3) where a count, a length or a tensor leaves the file.

    block_sizes: weights and bytes of a block of each type of weights.
    """
    size = os.stat(path).st_size
    if size < 24:
        raise _beyond(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _LayoutWalk(data, size).walk(path, {int(kind): pair for kind, pair in block_sizes.items()})
        except (struct.error, IndexError, OverflowError):
            raise _beyond(path) from None


def _beyond(path: Path) -> BnError:
    what = f"{path} is truncated or damaged: it ends before its last table or tensor"
    return bad_input(what, "fetch it again")


class _LayoutWalk:
    """A position in the file, which no step leads out of."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self.data, self.size, self.at = data, size, 4

    def take(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return int(value)

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > self.size:
            raise IndexError

    def walk(self, path: Path, block_sizes: dict[int, tuple[int, int]]) -> None:
        version = self.take("<I")
        if version & 0xFFFF == 0:
            raise bad_input(f"{path} has the other byte order", "convert it on a machine of this byte order")
        tensors, pairs = self.take("<Q"), self.take("<Q")
        if 24 * tensors > self.size or 13 * pairs > self.size:
            raise IndexError
        for _ in range(pairs):
            self.skip(self.take("<Q"))
            self.value(path, self.take("<I"), 0)
        ends = [self.tensor(path, block_sizes) for _ in range(tensors)]
        if max(ends, default=0) > self.size:
            raise IndexError

    def value(self, path: Path, kind: int, depth: int) -> None:
        if kind in _WIDTH:
            self.skip(_WIDTH[kind])
        elif kind == _TEXT:
            self.skip(self.take("<Q"))
        elif kind == _ARRAY and depth < _DEEPEST:
            self.array(path, depth)
        else:
            raise bad_input(
                f"{path} is damaged: a value has type {kind}, which there is not", "fetch it again"
            )

    def array(self, path: Path, depth: int) -> None:
        kind, count = self.take("<I"), self.take("<Q")
        if kind in _WIDTH:
            return self.skip(_WIDTH[kind] * count)
        if 8 * count > self.size:
            raise IndexError
        for _ in range(count):
            self.value(path, kind, depth + 1)
        return None

    def tensor(self, path: Path, block_sizes: dict[int, tuple[int, int]]) -> int:
        """Bytes from the start of the data that a tensor ends at."""
        self.skip(self.take("<Q"))
        axes = self.take("<I")
        if axes > _MOST_AXES:
            raise bad_input(f"{path} is damaged: a tensor of {axes} axes", "fetch it again")
        count = 1
        for _ in range(axes):
            count *= self.take("<Q")
        block, width = block_sizes.get(self.take("<I"), (1, 0))
        return self.take("<Q") + count // block * width
