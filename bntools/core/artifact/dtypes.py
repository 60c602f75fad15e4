"""Names of the safetensors types and their torch counterparts."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from bntools.core.errors import bad_input

if TYPE_CHECKING:
    import torch

_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


@cache
def _to_torch() -> dict[str, torch.dtype]:
    import torch

    return {
        name: getattr(torch, attribute) for name, attribute in _NAMES.items() if hasattr(torch, attribute)
    }


def torch_dtype(name: str) -> torch.dtype:
    """torch type of a safetensors type name; BnError (exit 3) where torch has none."""
    try:
        return _to_torch()[name]
    except KeyError:
        raise bad_input(f"torch has no type for {name} tensors") from None


@cache
def _from_torch() -> dict[torch.dtype, str]:
    return {value: key for key, value in _to_torch().items()}


def name_of(dtype: torch.dtype) -> str:
    """safetensors name of a torch type."""
    return _from_torch()[dtype]
