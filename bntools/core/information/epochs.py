"""Dumps of a training run: for each epoch the activations of every layer, with the inputs and labels they belong to.

A dump is activations (bntools-activations(5)) whose tensors are named `epoch.E.layer.L`, in one file or stream or one
file an epoch of a folder; `inputs` and the column `label` stand beside them, in a folder in a file of their own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact import streams
from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.errors import bad_input, usage

_NAME = re.compile(r"epoch\.(\d+)\.layer\.(.+)")
INPUTS, LABEL = "inputs", "label"


class LayerDump(NamedTuple):
    """Where the activations of one layer at one epoch lie."""

    epoch: int
    layer: str
    artifact: Artifact
    tensor: str

    def read(self) -> NDArray[np.float64]:
        """Activations [N, D] of any type, in float64. Raises BnError (exit 3) for NaN or infinity."""
        import torch

        x = self.artifact.tensor(self.tensor).to(torch.float64)
        x = x.reshape(len(x), -1)
        if not bool(torch.isfinite(x).all()):
            raise bad_input(
                f"{self.artifact.label}: {self.tensor} holds NaN or infinity", "did training diverge?"
            )
        return x.numpy()


class Dump(NamedTuple):
    """places by epoch and layer, in order; inputs [N, D] and labels [N], None where the dump has none; its facts."""

    places: list[LayerDump]
    inputs: NDArray[np.float64] | None
    labels: NDArray[np.int64] | None
    facts: dict[int, dict[str, Any]]

    @property
    def rows(self) -> int:
        """Rows that every layer was recorded on."""
        return self.places[0].artifact.entries[self.places[0].tensor].shape[0]

    @property
    def layers(self) -> list[str]:
        """Layers in the order of the network: that of the first epoch."""
        return list(dict.fromkeys(place.layer for place in self.places))

    @property
    def epochs(self) -> list[int]:
        return sorted({place.epoch for place in self.places})


def open_dump(source: str) -> Dump:
    """Open a folder of dumps, a file, or `-`.

    Raises BnError: exit 2 for a path that is not there, 3 where no tensor is named as above, rows do not match, or an
    epoch lacks a layer.
    """
    artifacts = _artifacts(source)
    places, inputs, labels, facts = [], None, None, {}
    for artifact in artifacts:
        about = artifact.json("bntools.activations", dict)
        for name in artifact.names():
            match = _NAME.fullmatch(name)
            if match:
                _check_rows(artifact, name)
                places.append(LayerDump(int(match[1]), match[2], artifact, name))
                epochs = about.get("epochs", {})
                facts[int(match[1])] = epochs.get(match[1], {}) if isinstance(epochs, dict) else {}
            elif name == INPUTS:
                _check_rows(artifact, name)
                inputs = LayerDump(0, name, artifact, name).read()
            elif name == LABEL and labels is None:
                labels = whole_labels(artifact.tensor(name))
    if not places:
        what = f"{source} has no tensor named epoch.E.layer.L"
        raise bad_input(what, "bntools record fc:784,20,10 --data mnist/ -o dumps/ writes them")
    places.sort(key=lambda place: place.epoch)
    dump = Dump(places, inputs, labels, facts)
    _check(dump, source)
    return dump


def _check_rows(artifact: Artifact, name: str) -> None:
    """Raises BnError (exit 3) where a tensor cannot be rows of real numbers."""
    entry = artifact.entries[name]
    if not entry.shape or not entry.numel or entry.dtype == "C64":
        shown = f"{entry.dtype} {list(entry.shape)}"
        raise bad_input(f"{artifact.label}: {name} is {shown}, not rows of numbers", "record it again")


def whole_labels(labels: Any) -> NDArray[np.int64]:
    """Class labels as whole numbers from 0 on. Raises BnError (exit 3) for others."""
    if not isinstance(labels, np.ndarray):  # a tensor: numpy lacks some of its types
        labels = labels.numpy() if not labels.is_floating_point() else labels.double().numpy()
    if labels.dtype.kind not in "iufb":
        raise bad_input(f"labels are {labels.dtype}", "classes are numbers from 0 on")
    if labels.ndim != 1 or not (labels == np.round(labels)).all():
        raise bad_input("labels are not one whole number a row", "classes are numbers from 0 on")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _artifacts(source: str) -> list[Artifact]:
    if source == "-":
        fd = os.dup(0)
        if not streams.is_regular(fd):
            spooled = streams.spool(fd)
            os.close(fd)
            fd = spooled
        return [Artifact(fd, "standard input")]
    path = Path(source)
    if path.is_dir():
        names = sorted(name for name in path.glob("*.safetensors") if name.name[0] != ".")
        if not names:
            raise bad_input(f"no .safetensors in {source}", "bntools record ... -o DIR/ writes one an epoch")
        return [open_path(name) for name in names]
    if not path.exists():
        raise usage(f"no dump at {source}", "bntools record fc:784,20,10 --data mnist/ -o dumps/")
    return [open_path(path)]


def _check(dump: Dump, source: str) -> None:
    rows = {}
    for place in dump.places:
        rows.setdefault(place.artifact.entries[place.tensor].shape[0], place)
    counts = {**rows}
    for what, array in (("inputs", dump.inputs), ("labels", dump.labels)):
        if array is not None and len(array) not in counts:
            raise bad_input(f"{source}: {len(array)} {what} for activations of {sorted(counts)} rows",
                            "every epoch is recorded on the same rows")  # fmt: skip
    if len(counts) > 1:
        first, other = list(counts.values())[:2]
        raise bad_input(f"{source}: {other.tensor} has {sorted(counts)} rows where {first.tensor} has others",
                        "every epoch is recorded on the same rows")  # fmt: skip
    whole = set(dump.layers)
    for epoch in dump.epochs:
        missing = whole - {place.layer for place in dump.places if place.epoch == epoch}
        if missing:
            raise bad_input(f"{source}: epoch {epoch} lacks layer {min(missing)}", "record that epoch again")
