"""Arrays of .npy and .npz files: type and shape are held against the file's size before anything is allocated."""

from __future__ import annotations

import math
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input

CONVERT = "convert it: numpy.save(FILE, array), or a .safetensors file"
_MOST_SHRINKING = 1032  # of deflate
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, ValueError, OSError, EOFError, KeyError, TypeError,
    SyntaxError, NotImplementedError, RecursionError, RuntimeError, MemoryError, OverflowError,
)  # fmt: skip
"""What Python's and numpy's parsers raise on damaged archives and headers."""


class NpyHeader(NamedTuple):
    """Shape, whether columns are contiguous, type, and bytes of the numbers."""

    shape: tuple[int, ...]
    by_column: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, data: bytes | bytearray) -> NDArray[Any]:
        return np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.by_column else "C")


def read_header(file: BinaryIO, size: int, label: str) -> NpyHeader:
    """The header of a .npy, where the file then stands. size: bytes of header and numbers together.

    Raises BnError (exit 3) for anything but numbers or texts, and where the numbers do not fill the size.
    """
    start = file.tell()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers of Python 2
            version = np.lib.format.read_magic(file)
            form = np.lib.format
            read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
            header = NpyHeader(*read(file))
    except _DAMAGE as error:
        raise _unreadable(label, error) from None
    if header.dtype.kind not in "fiubcUS" or not header.dtype.itemsize:
        raise bad_input(f"{label} holds {header.dtype}, neither numbers nor texts"[:200], CONVERT)
    if min(header.shape, default=0) < 0 or header.nbytes != size - (file.tell() - start):
        there = size - (file.tell() - start)
        what = f"{label} holds {there} bytes of numbers, its header describes {header.nbytes}"
        raise bad_input(what[:200], "was it fully written?")
    return header


def map_npy(file: Any, label: str) -> NDArray[Any]:
    """The array of an open .npy, mapped."""
    header = read_header(file, os.fstat(file.fileno()).st_size - file.tell(), label)
    if not header.nbytes:
        return np.empty(header.shape, header.dtype)
    return np.memmap(file, header.dtype, "r", file.tell(), header.shape, "F" if header.by_column else "C")


def read_npy(file: Any, label: str) -> NDArray[Any]:
    """The array of an open .npy, in memory."""
    header = read_header(file, os.fstat(file.fileno()).st_size - file.tell(), label)
    return header.array(bytearray(file.read(header.nbytes)))


def read_npz(file: Any, label: str, chosen: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an open .npz by name, in its order; only the chosen ones where they are named.

    Raises BnError (exit 3) for a damaged archive, one that numpy did not write, or Python objects.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = dict(zip(_names(archive, label), archive.infolist(), strict=True))
            return {
                name: _member(archive, info, f"{name} in {label}")
                for name, info in members.items() if chosen is None or name in chosen
            }  # fmt: skip
    except _DAMAGE as error:
        raise _unreadable(label, error) from None


def npz_names(file: Any, label: str) -> list[str]:
    """Names of the arrays of an open .npz."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _names(archive, label)
    except _DAMAGE as error:
        raise _unreadable(label, error) from None


def _names(archive: zipfile.ZipFile, label: str) -> list[str]:
    """Names of the arrays; BnError (exit 3) for an archive of other things, such as a .pt of torch."""
    names = archive.namelist()
    if not all(name.endswith(".npy") for name in names):
        raise bad_input(f"{label} is a zip archive, but none of numpy: it holds {names[0][:80]}", CONVERT)
    return [name.removesuffix(".npy") for name in names]


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, label: str) -> NDArray[Any]:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise bad_input(f"{label} is compressed in a way that numpy does not write", CONVERT)
    if info.file_size > _MOST_SHRINKING * (info.compress_size + 64):
        raise bad_input(f"{label}: {info.compress_size} bytes cannot hold {info.file_size}", "is it damaged?")
    with archive.open(info) as member:
        header = read_header(member, info.file_size, label)  # pyright: ignore[reportArgumentType]
        data = bytearray(member.read(header.nbytes))
    if len(data) != header.nbytes:
        raise bad_input(f"truncated: {label} ends after {len(data)} of {header.nbytes} bytes")
    return header.array(data)


def _unreadable(label: str, error: Exception) -> Exception:
    lines = str(error).splitlines() or [type(error).__name__]
    return bad_input(f"{label} is no readable numpy file: {lines[0][:100]}", CONVERT)
