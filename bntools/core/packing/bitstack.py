"""Stacks of signs and low-rank sizes, of which any prefix may be there (BitStack; bntools-stack(5))."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from bntools.core.artifact import fields
from bntools.core.errors import bad_input
from bntools.core.packing.matrix import Stored
from bntools.core.packing.stack import block_name

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Part = Callable[[str], bytes | bytearray]
    Level = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]

CODE = "bitstack"
MOST_LEVELS = 64


@dataclass(frozen=True)
class BitstackSpec(Stored):
    """How one tensor of the checkpoint is stacked.

    levels: in the whole file, the first one in its base. rank: of the sizes of a level. scaled: whether inputs have a
    factor each.
    """

    levels: int
    rank: int
    scaled: bool

    @property
    def width(self) -> int:
        """Bytes of the signs of a row."""
        return -(-self.cols // 8)

    @property
    def level_bytes(self) -> int:
        return self.rows * self.width + 2 * self.rank * (self.rows + self.cols)

    def part_names(self, name: str) -> list[str]:
        """Names of the stored tensors without which the weight cannot be."""
        return [f"{name}.level", *([f"{name}.inputs"] if self.scaled else [])]

    def block_names(self, name: str) -> list[str]:
        return [block_name(name, level, 0) for level in range(2, self.levels + 1)]

    def as_json(self) -> dict[str, Any]:
        return {"code": CODE, **asdict(self), "shape": list(self.shape)}


def parse(name: str, value: Mapping[str, Any]) -> BitstackSpec:
    """A spec from quantization.json; BnError (exit 3) on anything no writer of ours would have written."""
    try:
        spec = BitstackSpec(
            fields.shape(value["shape"]), value["dtype"], fields.flag(value["transposed"]),
            fields.whole(value["levels"], 1, MOST_LEVELS), fields.whole(value["rank"], 1), fields.flag(value["scaled"]),
        )  # fmt: skip
    except (KeyError, ValueError):
        raise bad_input(f"the coding of {name!r} is damaged") from None
    fits = len(spec.shape) == 2 and spec.dtype in ("F16", "BF16", "F32", "F64")
    if not fits or spec.rank > min(spec.shape):
        raise bad_input(f"the coding of {name!r} is out of range")
    return spec


def dump(bits: NDArray[np.uint8], left: NDArray[np.float16], right: NDArray[np.float16]) -> bytes:
    """A level: signs [rows, width], then of rank after rank v_r [cols] and u_r [rows].

    left [rows, k], right [k, cols]. What is cut off of it leaves out ranks of rows, each of which makes the fit
    better, since the v_r are orthogonal.
    """
    ranks = (right[rank].tobytes() + left[:, rank].tobytes() for rank in range(len(right)))
    return bits.tobytes() + b"".join(ranks)


def load(name: str, spec: BitstackSpec, data: bytes | bytearray) -> Level | None:
    """Signs [rows, width], u [rows, k], v [k, cols] float32 of what is there of a level, 0 where factors are cut off.

    None where not even the signs are there. Raises BnError (exit 3) for too many bytes, or factors that are no numbers.
    """
    import numpy as np

    if len(data) > spec.level_bytes:
        raise bad_input(f"{name}: a level has {len(data)} bytes, not {spec.level_bytes}")
    signs = spec.rows * spec.width
    if len(data) <= signs:
        return None
    flat = np.zeros(spec.rank * (spec.rows + spec.cols), np.float32)
    there = np.frombuffer(data, "<f2", (len(data) - signs) // 2, signs)
    flat[: len(there)] = there
    if not np.isfinite(flat).all():
        raise bad_input(f"{name}: the factors of a level are no numbers")
    pairs = flat.reshape(spec.rank, spec.cols + spec.rows)
    left, right = (np.ascontiguousarray(part) for part in (pairs[:, spec.cols :].T, pairs[:, : spec.cols]))
    return np.frombuffer(data, np.uint8, signs).reshape(spec.rows, spec.width), left, right


def values(name: str, spec: BitstackSpec, part: Part, levels: int | None = None) -> NDArray[np.float32]:
    """The weight [rows, cols] by at most so many levels, without the factors of its inputs."""
    import numpy as np

    from bntools.kernels.stack import absolute_binary

    there = read(name, spec, part, levels)
    weight = np.zeros((spec.rows, spec.cols), np.float32)
    for level in there:
        absolute_binary.add(weight, *level)
    return weight


def read(name: str, spec: BitstackSpec, part: Part, levels: int | None = None) -> Iterator[Level]:
    """At most so many levels, the last one as far as it is there.

    part: what is there of the bytes of a stored tensor. A level counts when all of those before it are whole.
    Raises BnError (exit 3), at once where the base is not of its size, which is before memory is asked for.
    """
    first = spec.part_names(name)[0]
    data = part(first)
    if len(data) != spec.level_bytes:
        raise bad_input(f"tensor {first!r} has {len(data)} bytes, its spec asks {spec.level_bytes}")
    return _whole(name, spec, islice(chain([data], map(part, spec.block_names(name))), levels))


def _whole(name: str, spec: BitstackSpec, stored: Iterable[bytes | bytearray]) -> Iterator[Level]:
    for data in stored:
        level = load(name, spec, data)
        if level is None:
            return
        yield level
        if len(data) < spec.level_bytes:
            return


def dense(
    name: str, spec: BitstackSpec, part: Part, scale: torch.Tensor | None, dtype: torch.dtype, levels: int | None = None
) -> torch.Tensor:  # fmt: skip
    """The weight as it was stored before coding. scale [in]: of its inputs, where they have one."""
    import torch

    weight = torch.from_numpy(values(name, spec, part, levels))
    if spec.scaled:
        if scale is None or tuple(scale.shape) != (spec.cols,) or not bool(torch.isfinite(scale).all()):
            raise bad_input(f"{name}: the factors of the inputs are damaged")
        weight *= scale.float()
    weight = weight.to(dtype)
    return weight.T.contiguous() if spec.transposed else weight
