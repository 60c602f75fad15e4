"""From a file to clean points: read, flatten, drop what no distance can use, merge what coincides."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact import dtypes, streams
from bntools.core.artifact.reader import Artifact, parse_json
from bntools.core.datasets import numpy_files
from bntools.core.errors import BnError, bad_input, usage
from bntools.tools.data_dim import lattice

Floats = NDArray[np.float64]

FEWEST = 50
"""Distinct points needed by every estimator."""
_USUAL = 60
"""Power of two up to which squares of numbers, in float32 too, neither overflow nor vanish."""
_CONVERT = "convert it: numpy.save(FILE, array), or a .safetensors file"


class Cloud(NamedTuple):
    """Distinct finite points [N, D], the relative precision they were stored in, and what was left out.

    exponent: of the power of two they were divided by; spread: whether they were moved within the cells of a grid.
    """

    points: Floats
    precision: float
    duplicates: int
    dropped_rows: int
    dropped_columns: int
    exponent: int = 0
    spread: bool = False


def read(source: str, name: str | None) -> tuple[NDArray[Any], float, str]:
    """The array that INPUT holds, its relative precision (0 for integers), and the name of the tensor.

    A safetensors artifact, .npy, .npz or manifest, told apart by its first bytes; `-` is standard input. Raises
    BnError: exit 2 for a file that is not there or a tensor that must be named, 3 for damage and foreign formats.
    """
    label = "standard input" if source == "-" else source
    fd = _open(source)
    kind = streams.sniff(os.pread(fd, 64, 0))
    if kind == "safetensors":
        with Artifact(fd, label) as artifact:
            return _from_artifact(artifact, name)
    os.lseek(fd, 0, os.SEEK_SET)  # a spooled pipe stands at its end
    with os.fdopen(fd, "rb") as file:
        if kind == "json":
            manifest = parse_json(file.read(), dict, label)
            if manifest.get("bntools") == 1 and isinstance(manifest.get("path"), str):
                return read(manifest["path"], name)
            raise bad_input(f"{label} is a JSON report where points are expected", "pipe the tensors")
        if kind not in ("npy", "zip"):
            raise _refusal(kind, label)
        return _from_numpy(file, kind, label, name)


def clean(array: NDArray[Any], precision: float) -> Cloud:
    """Points [N, D] in float64: leading axes flattened, a vector taken as N points on a line.

    Rows with NaN or infinity, then constant columns, then repeated rows are left out and counted; N counts what is
    left. Raises BnError (exit 3) when fewer than 50 distinct points remain, or every column is constant.
    """
    if array.ndim == 0 or array.size == 0:
        raise bad_input(f"an array of shape {array.shape} holds no points")
    points = np.asarray(array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1), np.float64)
    finite = np.isfinite(points).all(1)
    kept = points[finite]
    if len(kept) == 0:
        raise bad_input(f"all {len(points)} points have NaN or infinite coordinates")
    varying = (kept != kept[0]).any(0)
    if not varying.any():
        raise bad_input(f"all {len(kept)} points are the same", "is it the right tensor? see --tensor")
    kept = np.ascontiguousarray(kept[:, varying]) + 0.0  # -0 and 0 are one number but not the same bytes
    exponent = _exponent(kept)
    kept = np.ldexp(kept, -exponent) if exponent else kept
    distinct = _distinct(kept)
    if len(distinct) < FEWEST:
        raise bad_input(
            f"{len(distinct)} distinct points are too few: at least {FEWEST} are needed",
            "rows are points, the last axis is their coordinates",
        )
    left_out = int((~finite).sum()), int((~varying).sum())
    moved = lattice.spread(kept)
    if moved is not None:
        return Cloud(moved, 0.0, 0, *left_out, exponent=exponent, spread=True)
    return Cloud(kept[distinct], precision, len(kept) - len(distinct), *left_out, exponent=exponent)


def _exponent(points: Floats) -> int:
    """Of the power of two to divide by before squares overflow or vanish; 0 for numbers of usual size."""
    exponent = int(np.frexp(np.abs(points).max())[1])
    return exponent if abs(exponent) > _USUAL else 0


def _distinct(points: Floats) -> NDArray[np.int64]:
    """First index of each distinct row, ascending."""
    rows = points.view(np.dtype((np.void, points.dtype.itemsize * points.shape[1])))[:, 0]
    return np.sort(np.unique(rows, return_index=True)[1])


def _open(source: str) -> int:
    try:
        fd = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise usage(f"cannot open {source}: {error.strerror}", "check the path") from None
    if streams.is_regular(fd):
        return fd
    if os.path.isdir(f"/proc/self/fd/{fd}"):
        os.close(fd)
        raise usage(f"{source} is a directory", "name a .safetensors, .npy or .npz file")
    spooled = streams.spool(fd)
    os.close(fd)
    return spooled


def _choose(names: list[str], name: str | None, label: str) -> str:
    """The tensor asked for, or the only one."""
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if name is not None and name not in names:
        raise usage(f"{label} has no tensor {name}", f"it has: {shown}")
    if name is None and len(names) != 1:
        raise usage(f"{label} has {len(names)} tensors, which one?", f"--tensor NAME, of: {shown}")
    return names[0] if name is None else name


def _from_artifact(artifact: Artifact, name: str | None) -> tuple[NDArray[Any], float, str]:
    import torch

    chosen = _choose(artifact.names(), name, artifact.label)
    tensor = artifact.tensor(chosen)
    if tensor.is_complex():
        raise bad_input(f"tensor {chosen} is complex", "split it into real and imaginary columns")
    if artifact.entries[chosen].dtype in dtypes.FLOATS or tensor.is_floating_point():
        precision = torch.finfo(tensor.dtype).eps
        return tensor.to(torch.float64).numpy(), precision, chosen
    return tensor.numpy(), 0.0, chosen


def _from_numpy(file: Any, kind: str, label: str, name: str | None) -> tuple[NDArray[Any], float, str]:
    if kind == "npy":
        if name is not None:
            raise usage(f"{label} is one array without a name", "leave out --tensor")
        chosen, array = label, numpy_files.read_npy(file, label)
    else:
        chosen = _choose(numpy_files.npz_names(file, label), name, label)
        array = numpy_files.read_npz(file, label, (chosen,))[chosen]
    if array.dtype.kind not in "fiub":
        raise bad_input(f"{label} holds {array.dtype}, not real numbers", _CONVERT)
    precision = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0
    return array, precision, chosen


def _refusal(kind: str, label: str) -> BnError:
    if kind in ("gguf", "unknown"):
        return bad_input(f"{label} is neither safetensors, .npy nor .npz", _CONVERT)
    return streams.refuse(kind, label)
