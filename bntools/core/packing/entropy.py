"""Entropy-coded weights inside an artifact: a matrix as levels, exponents and classes, to bytes and back.

`bntools-entropy(5)` specifies the bytes. A weight is multiple(level) * 2^(r_i / octave) * 2^(c_j / octave) *
shrink[class], with class = clamp(a_i + b_j); r and a belong to its row, c and b to its column.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bntools.core.artifact import fields
from bntools.core.errors import bad_input
from bntools.core.packing.entropy_tables import AGAIN, SIDES, Tables, check_length, parse_tables
from bntools.core.packing.entropy_tables import dump_tables as dump_tables
from bntools.core.packing.matrix import Stored

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Ints = NDArray[np.int16]

TABLES = "entropy.tables"
CODE = "entropy"
_LANE = 1 << 15  # weights of a lane, at least, where the matrix has them
_ABREAST = 4  # lanes worth a call, see `kernels.rans_lanes`
_STEEPEST = 127  # octaves of a scale, 16 more for the level: float32 holds it


@dataclass(frozen=True)
class EntropySpec(Stored):
    """How one tensor of the checkpoint is coded.

    octave: steps of the scale exponents in a factor of two. lane: columns (inputs) of one lane.
    """

    octave: int
    lane: int

    @property
    def lanes(self) -> int:
        return -(-self.cols // self.lane)

    @property
    def overhead(self) -> int:
        """Bytes of its stream besides what symbols cost: middles, sizes, states, checksum."""
        return 12 + 8 * (self.lanes + 1)

    def part_names(self, name: str) -> list[str]:
        """Names of the stored tensors of this weight alone."""
        return [f"{name}.stream"]

    def as_json(self) -> dict[str, Any]:
        return {"code": CODE, **asdict(self), "shape": list(self.shape)}


def spec(shape: tuple[int, ...], dtype: str, transposed: bool, octave: int) -> EntropySpec:
    """The spec of a matrix, its lanes of at least 2^15 weights."""
    rows, cols = shape[::-1] if transposed else shape
    return EntropySpec(tuple(shape), dtype, transposed, octave, min(cols, -(-_LANE // rows)))


def parse(name: str, value: Mapping[str, Any]) -> EntropySpec:
    """A spec from quantization.json; BnError (exit 3) on anything no writer of ours would have written."""
    try:
        spec = EntropySpec(
            fields.shape(value["shape"]), value["dtype"], fields.flag(value["transposed"]),
            fields.whole(value["octave"], 1, 1024), fields.whole(value["lane"], 1),
        )  # fmt: skip
    except (KeyError, ValueError):
        raise bad_input(f"the coding of {name!r} is damaged") from None
    if len(spec.shape) != 2 or spec.lane > spec.cols or spec.dtype not in ("F16", "BF16", "F32", "F64"):
        raise bad_input(f"the coding of {name!r} is out of range")
    return spec


@dataclass
class EntropyCoded:
    """A quantized matrix before entropy coding: levels [cols, rows], and one value a row and a column of each side."""

    levels: Ints
    row_scale: Ints
    col_scale: Ints
    row_class: Ints
    col_class: Ints

    def side(self, kind: str) -> Ints:
        return getattr(self, kind)


class Counter:
    """How often each symbol occurs in the matrices of a model, to make their tables."""

    def __init__(self, trellis: bool) -> None:
        import numpy as np

        from bntools.kernels.entropy import rans

        self.trellis, self.sets = trellis, 2 if trellis else 1
        self.levels = np.zeros((rans.CLASSES * self.sets, rans.SYMBOLS), dtype=np.int64)
        self.sides = np.zeros((len(SIDES), rans.SYMBOLS), dtype=np.int64)

    def add(self, coded: EntropyCoded) -> None:
        import numpy as np

        from bntools.kernels.entropy import rans

        self.levels += rans.count(coded.levels, _indices(coded, self.sets), len(self.levels))
        for kind, row in zip(SIDES, self.sides, strict=True):
            values = _centred(coded.side(kind))[1]
            row += rans.count(values, np.zeros(len(values), np.uint8), 1)[0]

    def bits(self) -> float:
        """Bits of everything counted, by the best static tables; lanes and headers are not in it."""
        from bntools.kernels.entropy import rans

        return sum(rans.cost_bits(rans.normalize(seen), seen) for seen in (self.levels, self.sides))

    def class_bits(self) -> NDArray[np.float64]:
        """Bits of a weight of each class [64], sides left out; classes never met as the nearest that were."""
        import numpy as np

        from bntools.kernels.entropy import rans

        pairs = np.stack([rans.normalize(self.levels), self.levels], 1).reshape(
            rans.CLASSES, self.sets, 2, -1
        )
        seen = self.levels.reshape(rans.CLASSES, -1).sum(1)
        met = np.flatnonzero(seen)
        costs = [sum(rans.cost_bits(f[None], n[None]) for f, n in pairs[at]) / seen[at] for at in met]
        return np.interp(np.arange(rans.CLASSES), met, costs)

    def tables(self, shrink: NDArray[np.float32]) -> Tables:
        from bntools.kernels.entropy import rans

        return Tables(self.trellis, shrink, rans.normalize(self.levels), rans.normalize(self.sides))


def _indices(coded: EntropyCoded, sets: int) -> NDArray[np.uint8]:
    import numpy as np

    from bntools.kernels.entropy import dependent_trellis, rans

    out = np.empty(coded.levels.shape, dtype=np.uint8)
    rans.table_indices(coded.levels, coded.row_class, coded.col_class, sets, dependent_trellis.MACHINE, out)
    return out


def _centred(values: Ints) -> tuple[int, Ints]:
    """A middle value and what is left: its distribution is the same for every matrix."""
    import numpy as np

    middle = int(np.sort(values)[len(values) // 2])
    return middle, (values - middle).astype(np.int16)


def encode(coded: EntropyCoded, spec: EntropySpec, tables: Tables) -> bytes:
    """The stream of one matrix: middles, sizes, words of the sides and of every lane, checksum."""
    import numpy as np

    from bntools.kernels.entropy import rans

    packed = rans.cumulative(tables.frequencies())
    centred = [_centred(coded.side(kind)) for kind in SIDES]
    values = np.concatenate([part for _, part in centred])
    kinds = np.repeat(np.arange(len(SIDES), dtype=np.uint8), [len(part) for _, part in centred])
    words = [rans.encode_lane(values, kinds + np.uint8(len(tables.levels)), packed)]
    indices = _indices(coded, tables.sets)
    for start in range(0, spec.cols, spec.lane):
        part = slice(start, start + spec.lane)
        words.append(rans.encode_lane(coded.levels[part], indices[part], packed))
    head = struct.pack(f"<4h{len(words)}I", *(middle for middle, _ in centred), *map(len, words))
    body = head + b"".join(lane.astype("<u2").tobytes() for lane in words)
    return body + struct.pack("<I", zlib.crc32(body))


class Decoder:
    """Decodes the matrices of one model; the tables are expanded once."""

    def __init__(self, data: bytes) -> None:
        from bntools.kernels.entropy import rans

        self.tables = parse_tables(data)
        frequencies = self.tables.frequencies()
        self._packed, self._symbols = rans.cumulative(frequencies), rans.slots(frequencies)
        self._cheapest = rans.cheapest(frequencies)

    def coded(self, name: str, spec: EntropySpec, data: bytes | bytearray) -> EntropyCoded:
        """Levels and sides of one matrix, on torch's number of threads; BnError (exit 3) on a damaged stream."""
        import numpy as np
        import torch

        sides, words, bounds = self._open(name, spec, data)
        coded = EntropyCoded(np.empty((spec.cols, spec.rows), dtype=np.int16), *sides)
        lanes = max(_ABREAST, -(-spec.lanes // torch.get_num_threads()))  # one call a thread

        def run(index: int) -> None:
            some = slice(index * lanes * spec.lane, (index + 1) * lanes * spec.lane)
            own = bounds[index * lanes : (index + 1) * lanes + 1]
            self._decode(name, _columns(coded, some, coded.levels[some]), spec.lane, words, own)

        each(run, -(-spec.lanes // lanes))
        return coded

    def dense(
        self, name: str, spec: EntropySpec, data: bytes | bytearray, dtype: torch.dtype
    ) -> torch.Tensor:
        """The weight as it was stored before coding, in `dtype`, some lanes at a time on torch's number of threads."""
        import numpy as np
        import torch

        sides, words, bounds = self._open(name, spec, data)
        out = torch.empty(spec.cols, spec.rows, dtype=dtype)
        whole = EntropyCoded(np.empty((0, spec.rows), dtype=np.int16), *sides)

        def place(index: int) -> None:
            some = slice(index * _ABREAST * spec.lane, min((index + 1) * _ABREAST * spec.lane, spec.cols))
            own = bounds[index * _ABREAST : (index + 1) * _ABREAST + 1]
            piece = _columns(whole, some, np.empty((some.stop - some.start, spec.rows), dtype=np.int16))
            self._decode(name, piece, spec.lane, words, own)
            out[some] = torch.from_numpy(values(piece, self.tables, spec.octave))

        each(place, -(-spec.lanes // _ABREAST))
        # four times as fast as to write columns in place
        return out if spec.transposed else out.T.contiguous()

    def _decode(self, name: str, piece: EntropyCoded, lane: int, words: Any, bounds: Any) -> None:
        """Fill the levels of some lanes, which begin and end at these words."""
        from bntools.kernels.entropy import dependent_trellis, rans_cpu

        good = rans_cpu.decode_run(
            words, bounds, piece.row_class, piece.col_class, lane, self.tables.sets, self._packed, self._symbols,
            dependent_trellis.MACHINE, piece.levels,
        )  # fmt: skip
        if not good:
            raise bad_input(f"{name}: the coded weights are damaged", AGAIN)

    def _open(self, name: str, spec: EntropySpec, data: bytes | bytearray) -> tuple[list[Ints], Any, Any]:
        """The four sides of a stream whose checksum and sizes hold, its words, and where the lanes begin and end."""
        import numpy as np

        from bntools.kernels.entropy import rans

        count = spec.lanes + 1
        head = 8 + 4 * count
        if len(data) < head + 4 or zlib.crc32(memoryview(data)[:-4]) != struct.unpack("<I", data[-4:])[0]:
            raise bad_input(f"{name}: the checksum of the coded weights is wrong", AGAIN)
        middles = struct.unpack_from("<4h", data)
        sizes = struct.unpack_from(f"<{count}I", data, 8)
        if head + 2 * sum(sizes) + 4 != len(data):
            raise bad_input(f"{name}: the sizes in the coded weights do not add up")
        least = float(self._cheapest[-len(SIDES) :] @ [spec.rows, spec.cols, spec.rows, spec.cols])
        check_length(name, spec.shape, least, sizes[0], 1)
        words = np.frombuffer(data, dtype="<u2", count=sum(sizes), offset=head).astype(np.uint16)
        bounds = np.cumsum(sizes, dtype=np.int64)
        sides = self._sides(name, spec, middles, words[: bounds[0]])
        least = rans.least_bits(self._cheapest[: -len(SIDES)], *sides[2:])
        check_length(name, spec.shape, least, sum(sizes[1:]), spec.lanes)
        return sides, words, bounds

    def _sides(self, name: str, spec: EntropySpec, middles: tuple[int, ...], words: Any) -> list[Ints]:
        import numpy as np

        from bntools.kernels.entropy import dependent_trellis, rans

        sizes = [spec.rows, spec.cols, spec.rows, spec.cols]
        kinds = np.repeat(np.arange(len(SIDES), dtype=np.int16), sizes)
        flat = np.empty((1, sum(sizes)), dtype=np.int16)
        first = len(self.tables.levels)
        good = rans.decode_lane(
            words, kinds, np.zeros(1, np.int16), 1, self._packed[first:], self._symbols[first:],
            dependent_trellis.MACHINE, flat,
        )  # fmt: skip
        if not good:
            raise bad_input(f"{name}: the scales of the coded weights are damaged")
        parts = np.split(flat[0], np.cumsum(sizes)[:-1])
        sides = [part + np.int16(middle) for part, middle in zip(parts, middles, strict=True)]
        scales = [side.astype(np.int32) for side in sides[:2]]
        far = max(int(abs(scale).max()) for scale in scales) > _STEEPEST * spec.octave
        if far or sum(int(scale.max()) for scale in scales) > (_STEEPEST - 16) * spec.octave:
            raise bad_input(f"{name}: the scales of the coded weights are out of range")
        return sides


def _columns(coded: EntropyCoded, some: slice, levels: Ints) -> EntropyCoded:
    """Some columns of a matrix, whose levels are or will be there."""
    return EntropyCoded(
        levels, coded.row_scale, coded.col_scale[some], coded.row_class, coded.col_class[some]
    )


def each(work: Callable[[int], None], count: int) -> None:
    """Run work(0..count-1) on torch's number of threads; the first error is raised."""
    import torch

    workers = min(torch.get_num_threads(), count)
    if workers < 2:
        for index in range(count):
            work(index)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, range(count)):
            pass


def powers(exponents: Ints, octave: int) -> NDArray[np.float32]:
    """2^(e / octave) of each exponent, float32; the fractions from one table, so the same on any machine."""
    import numpy as np

    table = np.array([2.0 ** (k / octave) for k in range(octave)])
    whole, rest = np.divmod(exponents.astype(np.int64), octave)
    return np.ldexp(table[rest], whole).astype(np.float32)


def values(coded: EntropyCoded, tables: Tables, octave: int) -> NDArray[np.float32]:
    """The weights [cols, rows] that levels, scales and classes stand for, in float32."""
    from bntools.kernels.entropy import dependent_trellis

    out = dependent_trellis.multiples(coded.levels, tables.trellis)
    dependent_trellis.scale(
        out, powers(coded.row_scale, octave), powers(coded.col_scale, octave), tables.shrink, coded.row_class,
        coded.col_class,
    )  # fmt: skip
    return out
