"""The tables of the entropy code, which all matrices of a model share, to bytes and back (`bntools-entropy(5)`)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bntools.core.errors import bad_input

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDES = ("row_scale", "col_scale", "row_class", "col_class")
AGAIN = "make or fetch the file again"
_MAGIC = b"BNE1"
_SLACK = 2  # a coder spends the entropy but for rounding; twice as much is no stream of ours


@dataclass(frozen=True)
class Tables:
    """What all matrices of a model share: frequencies of the levels by class (and set), of the sides, and shrinks."""

    trellis: bool
    shrink: NDArray[np.float32]  # [64]
    levels: NDArray[np.uint16]  # [64 * sets, 256], each row sums to 2^14
    sides: NDArray[np.uint16]  # [4, 256]

    @property
    def sets(self) -> int:
        return 2 if self.trellis else 1

    def frequencies(self) -> NDArray[np.uint16]:
        import numpy as np

        return np.concatenate([self.levels, self.sides])


def dump_tables(tables: Tables) -> bytes:
    """The bytes of `entropy.tables`."""
    body = bytearray(_MAGIC + struct.pack("<B", tables.sets) + tables.shrink.astype("<f4").tobytes())
    for row in tables.frequencies():
        body += _dump_row(row.tolist())
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


def _dump_row(row: list[int]) -> bytes:
    """First and last level symbol that occurs, the frequencies between, and that of the escape."""
    used = [index for index, f in enumerate(row[:-1]) if f]
    first, last = (used[0], used[-1]) if used else (1, 0)
    return bytes([first, last]) + b"".join(map(_varint, [*row[first : last + 1], row[-1]]))


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def parse_tables(data: bytes) -> Tables:
    """Tables from their bytes; BnError (exit 3) when damaged."""
    import numpy as np

    from bntools.kernels.entropy import rans

    try:
        if data[:4] != _MAGIC or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            raise ValueError("checksum")
        sets = data[4]
        shrink = np.frombuffer(data, "<f4", rans.CLASSES, 5).astype(np.float32)
        position, rows = 5 + 4 * rans.CLASSES, []
        for _ in range(rans.CLASSES * sets + len(SIDES)):
            row, position = _parse_row(data, position)
            rows.append(row)
        if sets not in (1, 2) or position != len(data) - 4 or not ((shrink > 0) & (shrink < np.inf)).all():
            raise ValueError("sets, length or shrink")
    except (ValueError, IndexError, struct.error):
        raise bad_input("the tables of the entropy code are damaged", AGAIN) from None
    frequencies = np.array(rows, dtype=np.uint16)
    return Tables(sets == 2, shrink, frequencies[: -len(SIDES)], frequencies[-len(SIDES) :])


def _parse_row(data: bytes, position: int) -> tuple[list[int], int]:
    from bntools.kernels.entropy import rans

    first, last = data[position], data[position + 1]
    position += 2
    counts = []
    for _ in range(max(0, last - first + 1) + 1):
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 14:
                break
        counts.append(value)
    row = [0] * rans.SYMBOLS
    row[first : first + len(counts) - 1] = counts[:-1]
    row[-1] = counts[-1]
    if last == rans.ESCAPE or not counts[-1] or sum(row) != rans.TOTAL:
        raise ValueError("a table has no escape or does not sum to its denominator")
    return row, position


def check_length(name: str, shape: tuple[int, ...], bits: float, words: int, lanes: int) -> None:
    """Raises BnError (exit 3) before memory is asked for: so few words cannot fill a shape that costs so many bits."""
    if bits > _SLACK * 16 * (words + 2 * lanes):
        raise bad_input(f"{name}: the coded weights are too few for shape {list(shape)}")
