"""What a bottleneck is built from and applied to: embeddings with labels, concept embeddings, annotations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.datasets.activations import open_activations
from bntools.core.errors import bad_input
from bntools.core.methods.cbm.bottleneck import Floats
from bntools.core.methods.cbm.file import array
from bntools.core.model.open import open_input


@dataclass(frozen=True)
class Embeddings:
    """x [N, d]; labels [N] or None; names of the rows or none; facts: what the file says of its encoder."""

    x: Floats
    labels: NDArray[np.int64] | None
    names: list[str]
    facts: dict[str, Any]
    label: str
    sha256: str = ""

    def need_labels(self) -> NDArray[np.int64]:
        if self.labels is None:
            raise bad_input(f"{self.label} has no labels", "a tensor `label` with one whole number a row")
        return self.labels


@dataclass(frozen=True)
class Truth:
    """Which rows have which concept: present [N, K] of 1, 0 and -1 (unknown), and the concepts' names."""

    present: NDArray[np.int8]
    names: list[str]

    def of(self, names: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Indices into `names` of the concepts annotated here, and their columns [N, k]."""
        place = {name: k for k, name in enumerate(self.names)}
        mine = [k for k, name in enumerate(names) if name in place]
        return np.array(mine, np.int64), self.present[:, [place[names[k]] for k in mine]]


def open_tensors(source: str) -> Artifact:
    """An artifact of tensors by name or `-`; a manifest opens what it names. Raises BnError (exit 2, 3)."""
    opened = open_input(source)
    if isinstance(opened, dict) and isinstance(opened.get("path"), str):
        opened = open_input(opened["path"])
    if not isinstance(opened, Artifact):
        raise bad_input(f"{source} is no file of tensors", "a .safetensors file: bntools embed writes one")
    return opened


def read_embeddings(source: str) -> Embeddings:
    """Rows x [N, d] with label [N], from whatever `open_activations` reads: a file, shards, numpy, a stream.

    Raises BnError: exit 3 for NaN or infinity, no rows, labels that do not fit; 2 for a path that is not there.
    """
    return read_columns(source)[0]


def read_columns(source: str) -> tuple[Embeddings, dict[str, NDArray[Any]]]:
    """The rows of `read_embeddings`, and every column beside them."""
    with open_activations(source) as opened:
        x, columns = opened.load()
        facts, label = opened.facts, opened.label
    labels, names = columns.get("label"), columns.get("names")
    if labels is not None and not np.issubdtype(labels.dtype, np.integer):
        raise bad_input(f"{label}: labels have type {labels.dtype}", "whole numbers, a class each")
    rows = Embeddings(
        x,
        None if labels is None else labels.astype(np.int64),
        [] if names is None else [str(name) for name in names],
        facts,
        label,
        hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest(),
    )
    return rows, columns


def read_owner(source: str) -> NDArray[np.int64] | None:
    """Which classes a concept was written for: the tensor `owner` [K, C] of 0 and 1, or None."""
    if not source.endswith(".safetensors"):
        return None
    with open_tensors(source) as opened:
        return array(opened, "owner").astype(np.int64) if "owner" in opened.entries else None


def read_truth(source: str, rows: int) -> Truth:
    """Annotations: the tensor `concept` [N, K], and the side file concepts.txt, one name a line."""
    with open_tensors(source) as opened:
        if "concept" not in opened.entries:
            raise bad_input(
                f"{opened.label} has no tensor concept", "concept [rows, concepts] of 1, 0 and -1"
            )
        present, files, label = array(opened, "concept"), opened.files, opened.label
    if "concepts.txt" not in files:
        raise bad_input(f"{label} has no file concepts.txt", "the name of each concept, one a line")
    names = files["concepts.txt"].decode("utf-8", "replace").split("\n")
    if present.ndim != 2 or present.shape != (rows, len(names)):
        what = f"{label}: annotations {list(present.shape)} for {rows} rows and {len(names)} names"
        raise bad_input(what, "a row of annotations for each row of the data")
    if not np.isin(present, (-1, 0, 1)).all():
        raise bad_input(f"{label}: annotations other than 1, 0 and -1", "1: present, 0: absent, -1: unknown")
    return Truth(present.astype(np.int8), names)


def own_truth(source: str, rows: int) -> Truth | None:
    """The annotations in a file of embeddings itself, None where it is no file that has some."""
    if not source.endswith(".safetensors"):
        return None
    with open_tensors(source) as opened:
        there = "concept" in opened.entries
    return read_truth(source, rows) if there else None


def same_encoder(first: dict[str, Any], second: dict[str, Any], labels: tuple[str, str]) -> None:
    """Refuse (exit 3) embeddings of two encoders, where both files say which made them."""
    for key in ("encoder", "model", "sha256"):
        a, b = first.get(key), second.get(key)
        if a and b:
            if a == b:
                return
            if key != "model" or not (first.get("sha256") and second.get("sha256")):
                what = f"{labels[0]} was made by {a}, {labels[1]} by {b}"
                raise bad_input(what, "embed both with one encoder")


def same_width(first: int, second: int, labels: tuple[str, str]) -> None:
    if first != second:
        what = f"{labels[0]} has {first} dimensions, {labels[1]} {second}"
        raise bad_input(what, "embed both with one encoder")
