"""The safetensors header: parse it with every rule checked, and write it (bntools-artifact(5))."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bntools.core.errors import BnError, bad_input

MAX_HEADER = 100_000_000  # the limit of the safetensors format
MAX_METADATA = 64 * 1024
FILE_PREFIX = "bntools.file/"
BLOCK_PREFIX = "bntools.block/"  # of the tensors of a stack that may be missing (bntools-stack(5))
FILE_NAME = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)?[A-Za-z0-9_-][A-Za-z0-9._-]*")

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of a stream: its type, shape and byte range relative to the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A parsed header: metadata, entries in the order of their data, and its own size in bytes."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    size: int = 8

    @property
    def data_bytes(self) -> int:
        return max((entry.end for entry in self.entries.values()), default=0)

    @property
    def total(self) -> int:
        return self.size + self.data_bytes

    @property
    def base_bytes(self) -> int:
        """Bytes of the smallest prefix that holds everything but blocks of a stack."""
        base = (entry.end for name, entry in self.entries.items() if not name.startswith(BLOCK_PREFIX))
        return self.size + max(base, default=0)


def nbytes(dtype: str, shape: Iterable[int]) -> int:
    """Bytes of a tensor; ValueError for an unknown type or a sub-byte tensor that ends inside a byte."""
    if dtype not in BITS:
        raise ValueError(f"unknown dtype {dtype!r}")
    bits = BITS[dtype]
    for size in shape:
        bits *= size
        if bits > 1 << 66 and size:
            raise ValueError("shape overflows")
    if bits % 8:
        raise ValueError(f"{dtype} tensor ends inside a byte")
    return bits // 8


def header_length(prefix: bytes) -> int:
    """Length of the JSON text from the first eight bytes of a stream."""
    if len(prefix) < 8:
        raise bad_input(f"truncated: {len(prefix)} bytes, a safetensors stream starts with 8 bytes of length")
    length = int.from_bytes(prefix[:8], "little")
    if not 2 <= length <= MAX_HEADER:
        raise bad_input(f"not safetensors: header length {length} is outside 2..{MAX_HEADER}")
    return length


def parse(text: bytes) -> Header:
    """Check and parse the JSON text of a header. Raises BnError (exit 3) on any breach of the format."""
    raw = _load_object(text)
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise bad_input("damaged header: __metadata__ must map strings to strings")
    entries = sorted((_entry(name, value) for name, value in raw.items()), key=lambda e: (e.start, e.end))
    position = 0
    for entry in entries:
        if entry.start != position:
            problem = "overlaps the tensor before it" if entry.start < position else "leaves a hole before it"
            raise bad_input(f"damaged header: tensor {entry.name!r} {problem}")
        position = entry.end
    return Header(metadata, {entry.name: entry for entry in entries}, 8 + len(text))


def _load_object(text: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise bad_input(f"damaged header: {str(error) or 'nested too deeply'}"[:200]) from None
    if not isinstance(raw, dict):
        raise bad_input("damaged header: not a JSON object")
    return raw


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    for text in (*result, *(value for value in result.values() if isinstance(value, str))):
        text.encode()  # a lone surrogate is a ValueError here rather than a failure when it is shown
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _entry(name: str, value: object) -> Entry:
    shown = repr(name[:80])
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise bad_input(f"damaged header: tensor {shown} needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise bad_input(f"damaged header: tensor {shown} has an invalid shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise bad_input(f"damaged header: tensor {shown} has invalid offsets")
    try:
        size = nbytes(dtype if isinstance(dtype, str) else repr(dtype), shape)
    except ValueError as error:
        raise bad_input(f"damaged header: tensor {shown}: {error}") from None
    if offsets[1] - offsets[0] != size:
        raise bad_input(f"damaged header: tensor {shown} of {size} bytes has offsets {offsets}")
    return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def encode(metadata: Mapping[str, str], entries: Iterable[Entry], room: int = 0) -> bytes:
    """Length prefix and JSON text, padded with spaces so that the data start on a multiple of 64 bytes.

    room: bytes of padding at least.
    """
    size = sum(len(key) + len(value) for key, value in metadata.items())
    if size > MAX_METADATA:
        raise BnError(
            f"metadata of {size} bytes is over the limit of {MAX_METADATA}", "shorten the command line"
        )
    body: dict[str, Any] = {"__metadata__": dict(metadata)}
    for entry in entries:
        body[entry.name] = {
            "dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.start, entry.end],
        }  # fmt: skip
    text = json.dumps(body, separators=(",", ":")).encode()
    text += b" " * (room + -(len(text) + room + 8) % 64)
    if len(text) > MAX_HEADER:
        raise BnError(f"header of {len(text)} bytes is over the limit of {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text


def side_file_name(tensor: str) -> str | None:
    """Name of the side file a tensor holds, None for an ordinary tensor; refuses names that could leave a folder."""
    if not tensor.startswith(FILE_PREFIX):
        return None
    name = tensor[len(FILE_PREFIX) :]
    if not FILE_NAME.fullmatch(name):
        raise bad_input(
            f"hostile side-file name {name[:80]!r}",
            "names may hold A-Z a-z 0-9 . _ - and one /, and no part may start with a dot",
        )
    return name
