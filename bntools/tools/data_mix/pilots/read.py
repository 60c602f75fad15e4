"""Sources and validation data from files: features and classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bntools.core.artifact.reader import open_path
from bntools.core.datasets.activations import Activations, open_activations
from bntools.core.errors import bad_input, usage
from bntools.core.work.folder import digest_of_json
from bntools.tools.data_mix.pilots.heads import Rows
from bntools.tools.data_mix.pilots.sources import Source, standardised

_LABELS = ("label", "y", "labels", "target")
_ENDINGS = (".safetensors", ".npz")


class Pool(NamedTuple):
    """Sources and validation rows, standardised; classes; and a digest of where they came from."""

    sources: list[Source]
    validation: Rows
    classes: int
    digest: str


def source_files(paths: Sequence[str]) -> list[str]:
    """The files named, of a folder all .safetensors and .npz in it. Raises BnError (exit 2)."""
    files: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            inside = sorted(str(p) for p in Path(path).iterdir() if p.suffix in _ENDINGS)
            if not inside:
                raise usage(f"{path} holds no .safetensors or .npz", "a folder with one file a source")
            files += inside
        elif not Path(path).exists():
            raise usage(f"no source at {path}", "name files, or a folder with one file a source")
        else:
            files.append(path)
    names = names_of(files)
    if len(set(names)) < len(names):
        raise usage(f"two sources are named {max(names, key=names.count)}", "name files differently")
    if len(files) < 2:
        raise bad_input(f"one source, {files[0]}: there is nothing to mix", "name two files or more")
    return files


def names_of(files: Sequence[str]) -> list[str]:
    return [Path(path).stem for path in files]


def read_pool(files: Sequence[str], validation: str) -> Pool:
    """All rows, in memory. Raises BnError (exit 3): widths or classes that do not fit each other."""
    sources = [Source(name, _rows(path)) for name, path in zip(names_of(files), files, strict=True)]
    goal = _rows(validation)
    width = sources[0].rows.x.shape[1]
    for path, rows in zip((*files, validation), (*(s.rows for s in sources), goal), strict=True):
        if rows.x.shape[1] != width:
            raise bad_input(
                f"{path} has {rows.x.shape[1]} features, {files[0]} {width}", "sources of one encoder, one width"
            )
    seen = np.unique(np.concatenate([s.rows.y for s in sources]))
    strange = np.setdiff1d(goal.y, seen)
    if len(strange):
        raise bad_input(f"{validation} has the label {strange[0]}, which no source has", "labels are classes from 0 on")
    digest = digest_of_json({name: _digest(path) for name, path in zip((*files, "val"), (*files, validation), strict=True)})
    scaled, goal = standardised(sources, goal)
    return Pool(scaled, goal, int(seen.max()) + 1, digest)


def _digest(path: str) -> list[int | str]:
    import hashlib

    with open(path, "rb") as file:
        return [hashlib.file_digest(file, "sha256").hexdigest()]


def _rows(path: str) -> Rows:
    with open_activations(path) as data:
        x, columns = data.load()
        name = _label(data)
    y = columns[name]
    if y.dtype.kind not in "iub" or (len(y) and y.min() < 0):
        raise bad_input(f"{path}: {name} is not classes from 0 on", "a column y of whole numbers")
    return Rows(x.astype(np.float64), y.astype(np.int64))


def _label(data: Activations) -> str:
    for name in _LABELS:
        if name in data.columns:
            return name
    shown = ", ".join(data.columns) or "none"
    raise bad_input(f"{data.label} has no labels; its columns: {shown}", "a tensor y with one class a row")


def row_counts(files: Sequence[str]) -> list[int]:
    """Rows of files for an external trainer: of the first tensor or array, whatever it holds."""
    counts = []
    for path in files:
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as arrays:
                counts.append(len(arrays[arrays.files[0]]))
            continue
        with open_path(path) as artifact:
            shapes = [artifact.entries[name].shape for name in artifact.names()]
        counts.append(int(shapes[0][0]) if shapes and shapes[0] else 0)
    return counts
