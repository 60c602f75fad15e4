"""Quantized weights inside an artifact: how one tensor becomes codes, scales and zeros, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bntools.core import entropy, stack
from bntools.core.errors import bad_input

if TYPE_CHECKING:
    import torch

    from bntools.kernels.groups import Packed

FILE = "quantization.json"
VERSION = 2
PARTS = ("codes", "rows", "scales", "zeros")
METAS = (0, 2, 3, 4)
MEMORIES = (0, 2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Spec:
    """How one tensor of the checkpoint is packed.

    dim: `oc`, groups run along the inputs of one output row; `ic`, along the outputs of one input column.
    shape, dtype: as stored before. transposed: stored [in, out]. A stack of experts has a leading dimension.
    meta: bits of the codes that stand for scales and zeros, 0 where these are numbers (see `kernels.metadata`).
    trellis: memory of the trellis code, 0 where levels are the codes (see `kernels.fixed_trellis`).
    """

    bits: int
    group: int
    dim: str
    symmetric: bool
    shape: tuple[int, ...]
    dtype: str
    transposed: bool
    meta: int = 0
    trellis: int = 0

    @property
    def flipped(self) -> bool:
        """Whether the packed rows run along the second of the two stored axes."""
        return (self.dim == "ic") != self.transposed

    @property
    def cols(self) -> int:
        return self.shape[-2] if self.flipped else self.shape[-1]

    @property
    def rows(self) -> int:
        return self.shape[-1] if self.flipped else self.shape[-2]

    @property
    def groups(self) -> int:
        """Groups of one row."""
        return 1 if self.group == -1 else -(-self.cols // self.group)

    def part_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the stored codes, scales and (unless symmetric) zeros; a byte a row where scales are coded."""
        lead = (*self.shape[:-2], self.rows)
        packed = -(-self.groups * (self.meta or self.bits) // 8)
        shapes = {"codes": (*lead, -(-self.cols * self.bits // 8))}
        if self.meta:
            return {**shapes, "rows": lead, "scales": (*lead, packed), "zeros": (*lead, packed)}
        shapes["scales"] = (*lead, self.groups)
        return shapes if self.symmetric else {**shapes, "zeros": (*lead, packed)}

    @property
    def nbytes(self) -> int:
        """Bytes of all parts, with float16 scales."""
        scale = 1 if self.meta else 2
        return sum(
            math.prod(shape) * (scale if part == "scales" else 1)
            for part, shape in self.part_shapes().items()
        )

    def as_json(self) -> dict[str, Any]:
        """The fields; those that a reader of version 1 does not know only where they matter."""
        known = {key: value for key, value in asdict(self).items() if value or key not in ("meta", "trellis")}
        return {**known, "shape": list(self.shape)}


AnySpec = Spec | entropy.Spec


def encode(entries: Mapping[str, tuple[AnySpec, Mapping[str, Any]]]) -> dict[str, Any]:
    """Content of quantization.json: a spec and what was measured for each packed tensor.

    The version is 1 where a reader of version 1 can read all of it.
    """
    new = any(isinstance(spec, Spec) and (spec.meta or spec.trellis) for spec, _ in entries.values())
    return {
        "version": VERSION if new else 1,
        "tensors": {name: {**spec.as_json(), **extra} for name, (spec, extra) in entries.items()},
    }


def decode(table: Mapping[str, Any]) -> dict[str, AnySpec]:
    """Specs by tensor name; BnError (exit 3) on anything a writer of ours would not have written."""
    if table.get("version") not in (1, VERSION):
        raise bad_input(
            f"{FILE} has version {table.get('version')!r}, this bntools reads 1 and {VERSION}",
            "upgrade bntools",
        )
    tensors = table.get("tensors")
    if not isinstance(tensors, dict):
        raise bad_input(f"{FILE} lists no tensors")
    return {name: _spec(name, value) for name, value in tensors.items()}


def _spec(name: str, value: Any) -> AnySpec:
    if isinstance(value, dict) and value.get("code") == entropy.CODE:
        return entropy.parse(name, value)
    if isinstance(value, dict) and value.get("code") == stack.CODE:
        return stack.parse(name, value)
    try:
        spec = Spec(
            int(value["bits"]), int(value["group"]), value["dim"], bool(value["symmetric"]),
            tuple(int(size) for size in value["shape"]), value["dtype"], bool(value["transposed"]),
            int(value.get("meta", 0)), int(value.get("trellis", 0)),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise bad_input(f"{FILE}: the entry of {name!r} is damaged") from None
    valid = (
        1 <= spec.bits <= 8
        and (spec.group == -1 or spec.group > 0)
        and spec.dim in ("oc", "ic")
        and len(spec.shape) in (2, 3)
        and min(spec.shape) > 0
        and spec.dtype in ("F16", "BF16", "F32", "F64")
        and spec.meta in METAS
        and spec.trellis in MEMORIES
        and not (spec.meta and (spec.symmetric or spec.dim != "oc"))
    )
    if not valid:
        raise bad_input(f"{FILE}: the entry of {name!r} is out of range")
    return spec


def kind_of(spec: AnySpec) -> str:
    """Dimension of the groups, or the kind of code that has none."""
    if isinstance(spec, stack.Spec):
        return stack.CODE
    return entropy.CODE if isinstance(spec, entropy.Spec) else spec.dim


def part_names(name: str, spec: AnySpec) -> list[str]:
    """Names of the stored tensors of one packed weight."""
    if isinstance(spec, entropy.Spec):
        return spec.part_names(name)
    return [f"{name}.{part}" for part in spec.part_shapes()]


def tensors(name: str, spec: Spec, slices: Iterable[Packed]) -> dict[str, torch.Tensor]:
    """Tensors of the artifact for one weight: one slice, or one an expert."""
    import torch

    parts = [_stored(piece, spec) for piece in slices]
    joined = {part: [piece[part] for piece in parts] for part in PARTS if part in parts[0]}
    return {
        f"{name}.{part}": torch.stack(values) if len(spec.shape) == 3 else values[0]
        for part, values in joined.items()
    }


def _stored(piece: Packed, spec: Spec) -> dict[str, torch.Tensor]:
    """The parts of one matrix as they are stored."""
    if spec.meta:
        from bntools.kernels.metadata import Meta

        assert piece.zeros is not None
        return {"codes": piece.codes, **Meta(spec.bits, spec.meta).encode(piece.scales, piece.zeros)}
    parts = {"codes": piece.codes, "scales": piece.scales, "zeros": piece.zeros}
    return {part: value for part, value in parts.items() if value is not None}


def slices(name: str, spec: Spec, get: Callable[[str], torch.Tensor]) -> list[Packed]:
    """The packed matrices of one weight, shapes checked (BnError, exit 3)."""
    stored = {part: get(f"{name}.{part}") for part in spec.part_shapes()}
    _check(name, spec, stored)
    stacked = stored if len(spec.shape) == 3 else {part: value[None] for part, value in stored.items()}
    count = stacked["codes"].shape[0]
    return [_piece({part: value[index] for part, value in stacked.items()}, spec) for index in range(count)]


def _piece(parts: Mapping[str, torch.Tensor], spec: Spec) -> Packed:
    """One matrix, its metadata expanded."""
    import torch

    from bntools.kernels.groups import Packed
    from bntools.kernels.metadata import Meta

    if spec.meta:
        meta = Meta(spec.bits, spec.meta)
        scales, zeros = meta.decode(parts["rows"], parts["scales"], parts["zeros"], spec.groups)
    else:
        scales, zeros = parts["scales"].to(torch.float32), parts.get("zeros")
    return Packed(parts["codes"], scales, zeros, spec.bits, spec.group, spec.cols, spec.flipped, spec.trellis)


def _check(name: str, spec: Spec, stored: Mapping[str, torch.Tensor]) -> None:
    for part, shape in spec.part_shapes().items():
        if tuple(stored[part].shape) != shape:
            raise bad_input(
                f"{name}.{part} has shape {list(stored[part].shape)}, its spec asks {list(shape)}"
            )


def dense(name: str, spec: Spec, get: Callable[[str], torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """The weight as it was stored before packing, dequantized."""
    import torch

    from bntools.kernels.groups import dequantize

    values = [dequantize(piece, dtype) for piece in slices(name, spec, get)]
    return torch.stack(values) if len(spec.shape) == 3 else values[0].contiguous()
