"""Quantized weights inside an artifact: how one tensor becomes codes, scales and zeros, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bntools.core.artifact import fields
from bntools.core.errors import bad_input
from bntools.core.packing import bitstack, entropy, stack

if TYPE_CHECKING:
    import torch

    from bntools.core.artifact.header import Entry
    from bntools.kernels.grouped.operations import Packed

FILE = "quantization.json"
VERSION = 3
PARTS = ("codes", "rows", "scales", "zeros", "inputs", "outputs")
METAS = (0, 2, 3, 4)
MEMORIES = (0, 2, 3, 4, 5, 6, 7, 8)
OCTAVES = (0, 8, 16, 32, 64)
SCALES = ("F16", "BF16", "F32")
_OPTIONAL = ("meta", "trellis", "inputs", "outputs")  # fields written only where they are not 0


@dataclass(frozen=True)
class GroupSpec:
    """How one tensor of the checkpoint is packed.

    dim: `oc`, groups run along the inputs of one output row; `ic`, along the outputs of one input column.
    shape, dtype: as stored before. transposed: stored [in, out]. A stack of experts has a leading dimension.
    meta: bits of the codes that stand for scales and zeros, 0 where these are numbers (see `kernels.metadata`).
    trellis: memory of the trellis code, 0 where levels are the codes (see `kernels.fixed_trellis`).
    inputs, outputs: steps in an octave of a factor for every input or output of the weight, a byte each with the
    meaning 2^((byte - 128) / steps); 0 where there are none.
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
    inputs: int = 0
    outputs: int = 0

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
        """Shapes of the stored codes, scales and (unless symmetric) zeros; a byte a row where scales are coded, an
        input or an output where these have factors."""
        lead = (*self.shape[:-2], self.rows)
        packed = -(-self.groups * (self.meta or self.bits) // 8)
        shapes = {"codes": (*lead, -(-self.cols * self.bits // 8))}
        if self.meta:
            shapes |= {"rows": lead, "scales": (*lead, packed), "zeros": (*lead, packed)}
        else:
            shapes["scales"] = (*lead, self.groups)
            shapes |= {} if self.symmetric else {"zeros": (*lead, packed)}
        inner, out = self.shape[-2:] if self.transposed else self.shape[-2:][::-1]
        shapes |= {"inputs": (*self.shape[:-2], inner)} if self.inputs else {}
        return shapes | ({"outputs": (*self.shape[:-2], out)} if self.outputs else {})

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
        known = {key: value for key, value in asdict(self).items() if value or key not in _OPTIONAL}
        return {**known, "shape": list(self.shape)}


AnySpec = GroupSpec | entropy.EntropySpec | bitstack.BitstackSpec
STACKED = (stack.StackSpec, bitstack.BitstackSpec)


def encode(entries: Mapping[str, tuple[AnySpec, Mapping[str, Any]]]) -> dict[str, Any]:
    """Content of quantization.json: a spec and what was measured for each packed tensor.

    The version is the lowest one whose readers can read all of it.
    """
    specs = [spec for spec, _ in entries.values() if isinstance(spec, GroupSpec)]
    second = any(spec.meta or spec.trellis for spec in specs)
    third = any(spec.inputs or spec.outputs for spec in specs)
    return {
        "version": 3 if third else 2 if second else 1,
        "tensors": {name: {**spec.as_json(), **extra} for name, (spec, extra) in entries.items()},
    }


def decode(table: Mapping[str, Any]) -> dict[str, AnySpec]:
    """Specs by tensor name; BnError (exit 3) on anything a writer of ours would not have written."""
    if table.get("version") not in tuple(range(1, VERSION + 1)):
        raise bad_input(
            f"{FILE} has version {table.get('version')!r}, this bntools reads 1 to {VERSION}",
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
    if isinstance(value, dict) and value.get("code") == bitstack.CODE:
        return bitstack.parse(name, value)
    try:
        spec = GroupSpec(
            fields.whole(value["bits"], 1, 8), fields.whole(value["group"], -1), value["dim"],
            fields.flag(value["symmetric"]), fields.shape(value["shape"]), value["dtype"],
            fields.flag(value["transposed"]), *(fields.whole(value.get(key, 0)) for key in _OPTIONAL),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):  # TypeError: the entry is no object
        raise bad_input(f"{FILE}: the entry of {name!r} is damaged") from None
    valid = (
        (spec.group == -1 or spec.group > 0)
        and spec.dim in ("oc", "ic")
        and len(spec.shape) in (2, 3)
        and spec.dtype in ("F16", "BF16", "F32", "F64")
        and spec.meta in METAS
        and spec.trellis in MEMORIES
        and spec.inputs in OCTAVES
        and spec.outputs in OCTAVES
        and not (spec.meta and (spec.symmetric or spec.dim != "oc"))
    )
    if not valid:
        raise bad_input(f"{FILE}: the entry of {name!r} is out of range")
    return spec


def check_parts(name: str, spec: AnySpec, entries: Mapping[str, Entry], label: str) -> None:
    """Raises BnError (exit 3) where the stored parts of a weight, by the header alone, are not those of its spec."""
    for part in part_names(name, spec):
        if part not in entries:
            raise bad_input(f"tensor {part!r} is missing from {label}")
    if isinstance(spec, GroupSpec):
        for part, shape in spec.part_shapes().items():
            entry = entries[f"{name}.{part}"]
            numbers = part == "scales" and not spec.meta
            if entry.shape != shape or entry.dtype not in (SCALES if numbers else ("U8",)):
                raise bad_input(
                    f"{entry.name} is {entry.dtype} {list(entry.shape)}, its spec asks {list(shape)}",
                    "make or fetch the file again",
                )
        return
    stream = entries[part_names(name, spec)[0]]
    wanted = spec.level_bytes if isinstance(spec, bitstack.BitstackSpec) else stream.nbytes
    if stream.dtype != "U8" or len(stream.shape) != 1 or stream.nbytes != wanted:
        raise bad_input(
            f"{stream.name} is {stream.dtype} {list(stream.shape)}, which its spec does not ask for"
        )


def kind_of(spec: AnySpec) -> str:
    """Dimension of the groups, or the kind of code that has none."""
    if isinstance(spec, stack.StackSpec):
        return stack.CODE
    if isinstance(spec, bitstack.BitstackSpec):
        return bitstack.CODE
    return entropy.CODE if isinstance(spec, entropy.EntropySpec) else spec.dim


def part_names(name: str, spec: AnySpec) -> list[str]:
    """Names of the stored tensors of one packed weight."""
    if isinstance(spec, entropy.EntropySpec | bitstack.BitstackSpec):
        return spec.part_names(name)
    return [f"{name}.{part}" for part in spec.part_shapes()]


def tensors(name: str, spec: GroupSpec, slices: Iterable[Packed]) -> dict[str, torch.Tensor]:
    """Tensors of the artifact for one weight: one slice, or one an expert."""
    import torch

    parts = [_stored(piece, spec) for piece in slices]
    joined = {part: [piece[part] for piece in parts] for part in PARTS if part in parts[0]}
    return {
        f"{name}.{part}": torch.stack(values) if len(spec.shape) == 3 else values[0]
        for part, values in joined.items()
    }


def _stored(piece: Packed, spec: GroupSpec) -> dict[str, torch.Tensor]:
    """The parts of one matrix as they are stored."""
    if spec.meta:
        from bntools.kernels.grouped.coded_scales import Meta

        assert piece.zeros is not None
        return {"codes": piece.codes, **Meta(spec.bits, spec.meta).encode(piece.scales, piece.zeros)}
    parts = {"codes": piece.codes, "scales": piece.scales, "zeros": piece.zeros}
    return {part: value for part, value in parts.items() if value is not None}


def slices(name: str, spec: GroupSpec, get: Callable[[str], torch.Tensor]) -> list[Packed]:
    """The packed matrices of one weight, shapes checked (BnError, exit 3)."""
    stored = {part: get(f"{name}.{part}") for part in spec.part_shapes()}
    _check(name, spec, stored)
    stacked = stored if len(spec.shape) == 3 else {part: value[None] for part, value in stored.items()}
    count = stacked["codes"].shape[0]
    return [_piece({part: value[index] for part, value in stacked.items()}, spec) for index in range(count)]


def _piece(parts: Mapping[str, torch.Tensor], spec: GroupSpec) -> Packed:
    """One matrix, its metadata expanded."""
    import torch

    from bntools.kernels.grouped.coded_scales import Meta
    from bntools.kernels.grouped.operations import Packed

    if spec.meta:
        meta = Meta(spec.bits, spec.meta)
        scales, zeros = meta.decode(parts["rows"], parts["scales"], parts["zeros"], spec.groups)
    else:
        scales, zeros = parts["scales"].to(torch.float32), parts.get("zeros")
    return Packed(parts["codes"], scales, zeros, spec.bits, spec.group, spec.cols, spec.flipped, spec.trellis)


def _check(name: str, spec: GroupSpec, stored: Mapping[str, torch.Tensor]) -> None:
    for part, shape in spec.part_shapes().items():
        if tuple(stored[part].shape) != shape:
            raise bad_input(
                f"{name}.{part} has shape {list(stored[part].shape)}, its spec asks {list(shape)}"
            )


def dense(name: str, spec: GroupSpec, get: Callable[[str], torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """The weight as it was stored before packing, dequantized."""
    import torch

    from bntools.kernels.grouped.operations import dequantize

    kind = torch.float32 if spec.inputs or spec.outputs else dtype
    values = [dequantize(piece, kind) for piece in slices(name, spec, get)]
    result = torch.stack(values) if len(spec.shape) == 3 else values[0].contiguous()
    for part, steps in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        if steps:
            along = -1 if (part == "inputs") == spec.transposed else -2
            result.mul_(factors(get(f"{name}.{part}"), steps).unsqueeze(along))
    return result.to(dtype)


def factors(stored: torch.Tensor, steps: int) -> torch.Tensor:
    """float32 factors of the inputs or outputs, from their bytes."""
    return ((stored.double() - 128) / steps).exp2().float()


def exponents(values: torch.Tensor, steps: int) -> torch.Tensor:
    """The bytes of the nearest factors; what is out of reach becomes the last in reach."""
    return (steps * values.double().clamp(min=1e-30).log2()).round_().add_(128).clamp_(0, 255).byte()
