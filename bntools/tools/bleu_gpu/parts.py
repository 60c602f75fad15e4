"""Lines counted apart, and their statistics joined."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from bntools.core.errors import bad_input
from bntools.core.jobs.inputs import fingerprint
from bntools.core.work import array_parts
from bntools.core.work.folder import identity
from bntools.core.work.shards import Shard
from bntools.tools.bleu_gpu.sources import Batch, Reading

KIND = "bleu-gpu-part"
_BLOCK = 1 << 20
_DECIDE = ("eos_id", "pad_id", "tokenizer", "from_stats", "also", "skip_bad")


class Lines:
    """The lines of part I of N of a file, as a file: those that begin in I/N to (I + 1)/N of its bytes."""

    def __init__(self, file: BinaryIO, shard: Shard) -> None:
        size = os.fstat(file.fileno()).st_size
        self._file = file
        self._start, self._end = (
            self._line_at(size * at // shard.count) for at in (shard.index, shard.index + 1)
        )
        file.seek(self._start)
        self._left = self._end - self._start

    def _line_at(self, position: int) -> int:
        """Where the first line begins that does not begin before a position."""
        if not position:
            return 0
        self._file.seek(position - 1)
        self._file.readline()
        return self._file.tell()

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(min(count if count >= 0 else self._left, self._left))
        self._left -= len(data)
        return data

    def before(self) -> int:
        """Lines of the file before these; reads them."""
        position, lines, left = self._file.tell(), 0, self._start
        self._file.seek(0)
        while left:
            block = self._file.read(min(_BLOCK, left))
            lines, left = lines + block.count(b"\n"), left - len(block)
        self._file.seek(position)
        return lines


def mine(file: BinaryIO, shard: Shard, reading: Reading) -> tuple[Any, Reading]:
    """The lines of a part, with the numbers they have in the whole file."""
    lines = Lines(file, shard)

    def skip(number: int, reason: str) -> None:
        reading.skip(number + lines.before(), reason)

    return lines, replace(reading, skip=skip)


def told_identity(source: str, orders: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the statistics depend on."""
    decides = {name: given[name] for name in _DECIDE}
    content = fingerprint(source)
    if isinstance(content, str):
        raise bad_input(f"{source}: no such file", "a .jsonl file")
    return identity("bleu-gpu", content, orders=orders, **decides)


def write(
    batches: Iterator[Batch], told: Mapping[str, Any], given: Mapping[str, Any], skipped: list[int]
) -> dict[str, Any] | None:
    """Write the statistics of a part's lines; returns the manifest."""
    taken = list(batches)
    arrays: dict[str, Any] = {"skipped": np.array(skipped, np.int64)}
    if taken:
        arrays["stats"] = np.concatenate([stats for stats, _ in taken])
        arrays |= {f"also.{name}": np.concatenate([also[name] for _, also in taken]) for name in taken[0][1]}
    return array_parts.write(
        given["output"], KIND, given["shard"], identity=told, arrays=arrays, force=given["force"]
    )


def read(paths: Sequence[str], told: Mapping[str, Any], skipped: list[int]) -> Iterator[Batch]:
    """The statistics of all parts, a batch each."""
    for part in array_parts.read(paths, KIND, told):
        skipped[0] += int(part["skipped"][0])
        if "stats" in part:
            also = {name[5:]: values for name, values in part.items() if name.startswith("also.")}
            yield part["stats"], also
