"""Quantized weights inside an artifact: how one tensor becomes codes, scales and zeros, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bntools.core import entropy
from bntools.core.errors import bad_input

if TYPE_CHECKING:
    import torch

    from bntools.kernels.groups import Packed

FILE = "quantization.json"
VERSION = 1
PARTS = ("codes", "scales", "zeros")


@dataclass(frozen=True)
class Spec:
    """How one tensor of the checkpoint is packed.

    dim: `oc`, groups run along the inputs of one output row; `ic`, along the outputs of one input column.
    shape, dtype: as stored before. transposed: stored [in, out]. A stack of experts has a leading dimension.
    """

    bits: int
    group: int
    dim: str
    symmetric: bool
    shape: tuple[int, ...]
    dtype: str
    transposed: bool

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
        """Shapes of the stored codes, scales and (unless symmetric) zeros."""
        lead = self.shape[:-2]
        shapes = {
            "codes": (*lead, self.rows, -(-self.cols * self.bits // 8)),
            "scales": (*lead, self.rows, self.groups),
            "zeros": (*lead, self.rows, -(-self.groups * self.bits // 8)),
        }
        return {part: shape for part, shape in shapes.items() if not (self.symmetric and part == "zeros")}

    @property
    def nbytes(self) -> int:
        """Bytes of all parts, with float16 scales."""
        return sum(
            math.prod(shape) * (2 if part == "scales" else 1) for part, shape in self.part_shapes().items()
        )

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}


AnySpec = Spec | entropy.Spec


def encode(entries: Mapping[str, tuple[AnySpec, Mapping[str, Any]]]) -> dict[str, Any]:
    """Content of quantization.json: a spec and what was measured for each packed tensor."""
    return {
        "version": VERSION,
        "tensors": {name: {**spec.as_json(), **extra} for name, (spec, extra) in entries.items()},
    }


def decode(table: Mapping[str, Any]) -> dict[str, AnySpec]:
    """Specs by tensor name; BnError (exit 3) on anything a writer of ours would not have written."""
    if table.get("version") != VERSION:
        raise bad_input(
            f"{FILE} has version {table.get('version')!r}, this bntools reads {VERSION}", "upgrade bntools"
        )
    tensors = table.get("tensors")
    if not isinstance(tensors, dict):
        raise bad_input(f"{FILE} lists no tensors")
    return {name: _spec(name, value) for name, value in tensors.items()}


def _spec(name: str, value: Any) -> AnySpec:
    if isinstance(value, dict) and value.get("code") == entropy.CODE:
        return entropy.parse(name, value)
    try:
        spec = Spec(
            int(value["bits"]), int(value["group"]), value["dim"], bool(value["symmetric"]),
            tuple(int(size) for size in value["shape"]), value["dtype"], bool(value["transposed"]),
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
    )
    if not valid:
        raise bad_input(f"{FILE}: the entry of {name!r} is out of range")
    return spec


def kind_of(spec: AnySpec) -> str:
    """Dimension of the groups, or the kind of code that has none."""
    return entropy.CODE if isinstance(spec, entropy.Spec) else spec.dim


def part_names(name: str, spec: AnySpec) -> list[str]:
    """Names of the stored tensors of one packed weight."""
    if isinstance(spec, entropy.Spec):
        return spec.part_names(name)
    return [f"{name}.{part}" for part in spec.part_shapes()]


def tensors(name: str, spec: Spec, slices: Iterable[Packed]) -> dict[str, torch.Tensor]:
    """Tensors of the artifact for one weight: one slice, or one an expert."""
    import torch

    parts = list(slices)
    result = {}
    for part in PARTS:
        values = [getattr(piece, part) for piece in parts]
        if values[0] is not None:
            result[f"{name}.{part}"] = torch.stack(values) if len(spec.shape) == 3 else values[0]
    return result


def slices(name: str, spec: Spec, get: Callable[[str], torch.Tensor]) -> list[Packed]:
    """The packed matrices of one weight, shapes checked (BnError, exit 3)."""
    import torch

    from bntools.kernels.groups import Packed

    stored = {part: get(f"{name}.{part}") for part in spec.part_shapes()}
    _check(name, spec, stored)
    stacked = stored if len(spec.shape) == 3 else {part: value[None] for part, value in stored.items()}
    zeros = stacked.get("zeros")
    return [
        Packed(
            codes=stacked["codes"][index],
            scales=stacked["scales"][index].to(torch.float32),
            zeros=None if zeros is None else zeros[index],
            bits=spec.bits,
            group=spec.group,
            cols=spec.cols,
            transposed=spec.flipped,
        )
        for index in range(stacked["codes"].shape[0])
    ]


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
