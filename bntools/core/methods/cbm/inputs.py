"""What a bottleneck is built from and applied to: embeddings with labels, concept embeddings, annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.errors import bad_input, usage
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
    """Rows x [N, d] of an artifact of kind activations, or of any safetensors file with one matrix.

    Raises BnError: exit 3 for NaN or infinity, no rows, labels that do not fit; 2 where several matrices are there.
    """
    with open_tensors(source) as opened:
        x = np.array(array(opened, _matrix(opened)), np.float32)
        labels = array(opened, "label").astype(np.int64) if "label" in opened.entries else None
        facts, names = opened.json("bntools.activations", dict), _names(opened)
        label, digest = opened.label, opened.sha256()
    if not x.size:
        raise bad_input(f"{label} holds no rows", "was anything written to it?")
    bad = ~np.isfinite(x).all(1)
    if bad.any():
        raise bad_input(
            f"{label}: {int(bad.sum())} rows hold NaN or infinity, the first is row {int(bad.argmax())}"
        )
    if labels is not None and labels.shape != (len(x),):
        raise bad_input(f"{label}: {len(x)} rows, labels {list(labels.shape)}", "one label a row")
    if names and len(names) != len(x):
        raise bad_input(f"{label}: {len(x)} rows and {len(names)} names", "names.txt holds one line a row")
    return Embeddings(x, labels, names, facts, label, digest)


def read_owner(source: str) -> NDArray[np.int64] | None:
    """Which classes a concept was written for: the tensor `owner` [K, C] of 0 and 1, or None."""
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
    """The annotations in a file of embeddings itself, None where it has none; standard input is not read again."""
    if source == "-":
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


def _matrix(opened: Artifact) -> str:
    names = [
        n for n in opened.names() if len(opened.entries[n].shape) == 2 and opened.entries[n].dtype[0] in "FB"
    ]
    if "x" in names:
        return "x"
    if len(names) != 1:
        raise usage(f"{opened.label} has {len(names)} matrices of floats, none named x", "name the rows x")
    return names[0]


def _names(opened: Artifact) -> list[str]:
    text = opened.files.get("names.txt", b"").decode("utf-8", "replace")
    return text.removesuffix("\n").split("\n") if text else []
