"""Labelled data in memory: IDX folders, safetensors and npz files, as whole numbers or floats with class labels."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import open_path
from bntools.core.datasets import numpy_files
from bntools.core.errors import BnError, bad_input, usage
from bntools.kernels.counter_random import permutation

_IDX = {
    "train_x": ("train-images", "idx3"), "train_y": ("train-labels", "idx1"),
    "test_x": ("t10k-images", "idx3"), "test_y": ("t10k-labels", "idx1"),
}  # fmt: skip
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_NAMES = ("train_x", "train_y", "test_x", "test_y")
_HOLDOUT = {"validation": 12, "test": 5}
"""One part in so many of the training data is held out where the data have no such split of their own."""
_SPLIT_STREAM, _LABEL_STREAM, _PIXEL_STREAM = 11, 12, 13


@dataclass(frozen=True)
class LabelledRows:
    """x: [n, ...] uint8 or float32, y: [n] int64."""

    x: NDArray[np.uint8] | NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def at(self, rows: NDArray[np.int64]) -> LabelledRows:
        return LabelledRows(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test rows; inputs are standardized as (x - mean) / std when they are used.

    Choices (learning rate, early stop, where to look next) are made on `validation`; `test` is only reported.
    """

    train: LabelledRows
    validation: LabelledRows
    test: LabelledRows
    classes: int
    mean: float
    std: float
    label: str
    sha256: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.train.x.shape[1:]


def read(path: str, seed: int = 0) -> Dataset:
    """Read a data set: a folder of IDX files, a .npz or a .safetensors file.

    Files hold `train_x`, `train_y` and, if there are any, `test_x`, `test_y` (or x_train, ...; or only `x`, `y`).
    A validation set of one row in 12, and where the data have none a test set of one in 5, are drawn from the training
    rows by `seed`. Raises BnError: exit 2 for a path that is not there, 3 for what is no labelled data.
    """
    arrays = _arrays(Path(path))
    train = _split(arrays["train_x"], arrays["train_y"], path)
    digest = hashlib.sha256()
    for name in _NAMES:
        if name in arrays:
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    order = permutation(seed, _SPLIT_STREAM, len(train))
    if "test_x" in arrays:
        test = _split(arrays["test_x"], arrays["test_y"], path)
    else:
        count = len(train) // _HOLDOUT["test"]
        test, order = train.at(np.sort(order[:count])), order[count:]
    if test.x.shape[1:] != train.x.shape[1:]:
        raise bad_input(f"{path}: test inputs have shape {test.x.shape[1:]}, training {train.x.shape[1:]}")
    count = max(len(order) // _HOLDOUT["validation"], 1)
    validation, train = train.at(np.sort(order[:count])), train.at(np.sort(order[count:]))
    if min(map(len, (train, validation, test))) < 1:
        raise bad_input(f"{path} has {len(order)} rows, too few to split")
    classes = int(max(split.y.max() for split in (train, validation, test))) + 1
    mean, std = _moments(train.x)
    return Dataset(train, validation, test, classes, mean, std, path, digest.hexdigest())


def shuffle_labels(data: Dataset, seed: int) -> Dataset:
    """Training labels in a random order: nothing is left but to memorize, so training rows are also what is scored."""
    order = permutation(seed, _LABEL_STREAM, len(data.train))
    train = LabelledRows(data.train.x, data.train.y[order])
    return replace(data, train=train, validation=train, test=train)


def shuffle_pixels(data: Dataset, seed: int) -> Dataset:
    """One random order of the places of an input, the same for all rows: locality is gone, information is not."""
    order = permutation(seed, _PIXEL_STREAM, int(np.prod(data.shape)))

    def one(split: LabelledRows) -> LabelledRows:
        mixed = split.x.reshape(len(split), -1)[:, order].reshape(split.x.shape)
        return LabelledRows(mixed, split.y)

    return replace(data, train=one(data.train), validation=one(data.validation), test=one(data.test))


def first_rows(data: Dataset, share: float) -> Dataset:
    """Only the given share of the training rows; where the training rows are scored, of those too."""
    count = max(1, round(share * len(data.train)))
    train = LabelledRows(data.train.x[:count], data.train.y[:count])
    if data.test is data.train:
        return replace(data, train=train, validation=train, test=train)
    return replace(data, train=train)


def _moments(x: NDArray) -> tuple[float, float]:
    """Mean and standard deviation over all values; of whole numbers exact, so the same on every machine."""
    if x.dtype == np.uint8:
        counts = np.bincount(x.reshape(-1), minlength=256).tolist()
        total = sum(counts)
        mean = sum(value * count for value, count in enumerate(counts)) / total
        square = sum(value * value * count for value, count in enumerate(counts)) / total
        return mean, max(square - mean * mean, 1e-12) ** 0.5
    flat = x.astype(np.float64)
    return float(flat.mean()), max(float(flat.std()), 1e-6)


def _split(x: NDArray, y: NDArray, path: str) -> LabelledRows:
    if y.ndim != 1 or len(x) != len(y) or x.ndim < 2 or not len(y):
        what = f"{path}: inputs {list(x.shape)} and labels {list(y.shape)} do not fit"
        raise bad_input(what, "one label a row of inputs")
    if not np.issubdtype(y.dtype, np.integer):
        raise bad_input(f"{path}: labels have type {y.dtype}, not integers", "labels are classes from 0 on")
    if y.min() < 0:
        raise bad_input(f"{path}: label {y.min()} is negative", "labels are classes from 0 on")
    if x.dtype != np.uint8:
        x = np.ascontiguousarray(x, np.float32)
        if not np.isfinite(x).all():
            raise bad_input(f"{path} holds inputs that are not finite")
    return LabelledRows(x if x.flags.writeable and x.flags.c_contiguous else x.copy(), y.astype(np.int64))


def _arrays(path: Path) -> dict[str, NDArray]:
    if path.is_dir():
        return _idx_folder(path)
    if not path.exists():
        raise usage(f"no data at {path}", "bntools fetch mnist -o mnist/ gets the handwritten digits")
    if path.suffix == ".npz":
        with path.open("rb") as file:
            return _named(path, numpy_files.read_npz(file, str(path)))
    with open_path(path) as file:
        arrays = {}
        for name in file.names():
            with contextlib.suppress(TypeError):  # numpy knows no bfloat16
                arrays[name] = file.tensor(name).numpy()
        return _named(path, arrays)


def _named(path: Path, named: dict[str, NDArray]) -> dict[str, NDArray]:
    """The arrays under their names here, whichever of the usual ones the file has."""
    usual = {"train_x": ("train_x", "x_train", "x", "X"), "train_y": ("train_y", "y_train", "y", "labels"),
             "test_x": ("test_x", "x_test"), "test_y": ("test_y", "y_test")}  # fmt: skip
    arrays = {
        name: named[other] for name, others in usual.items() for other in others[::-1] if other in named
    }
    if not {"train_x", "train_y"} <= set(arrays) or ("test_x" in arrays) != ("test_y" in arrays):
        what = f"{path} holds {', '.join(sorted(named)) or 'nothing'}, not labelled data"
        raise bad_input(what, "name the arrays train_x, train_y, test_x, test_y, or x and y")
    return arrays


def _idx_folder(folder: Path) -> dict[str, NDArray]:
    arrays = {}
    for name, (stem, rank) in _IDX.items():
        candidates = sorted(folder.glob(f"{stem}*{rank}*"))
        if candidates:
            arrays[name] = read_idx(candidates[0])
        elif name.startswith("train"):
            what = f"no {stem}-{rank}-ubyte in {folder}"
            raise bad_input(what, "a folder with the four IDX files: bntools fetch mnist -o mnist/")
    return _named(folder, arrays)


def _gunzipped(path: Path) -> bytes:
    """A gzipped file, at most what deflate makes of its size; BnError (exit 3) where it is damaged."""
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise bad_input(f"{path} is damaged: {error}", "fetch it again") from None


def read_idx(path: Path) -> NDArray:
    """One IDX file, also gzipped. Raises BnError (exit 3) when its header and its size do not fit."""
    try:
        data = _gunzipped(path) if path.suffix == ".gz" else path.read_bytes()
    except OSError as error:
        raise BnError(f"cannot read {path}: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise bad_input(f"{path} is not an IDX file")
    kind, rank = np.dtype(_IDX_TYPES[data[2]]), data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    if len(data) < 4 + 4 * rank or not rank:
        raise bad_input(f"truncated: {path} ends inside its header, which describes {rank} axes")
    wanted = 4 + 4 * rank + math.prod(shape) * kind.itemsize
    if len(data) != wanted:
        raise bad_input(f"{path} has {len(data)} bytes, its header describes {wanted}")
    return np.frombuffer(data, kind, offset=4 + 4 * rank).reshape(shape)
