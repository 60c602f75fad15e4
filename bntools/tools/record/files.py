"""Snapshots as activations: one file an epoch in a folder, or all in one file or stream."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bntools.core.artifact.writer import remove_tree, replace_directory
from bntools.core.datasets.activations import write_activations
from bntools.core.datasets.labelled import Dataset
from bntools.core.errors import usage
from bntools.core.information.epochs import INPUTS, LABEL
from bntools.tools.record.run import Recording, Snapshot, recorded_rows


class Work(NamedTuple):
    """What is recorded and the stages that led to it."""

    data: Dataset
    settings: Recording
    history: list[dict[str, Any]]


def write_file(
    target: str, work: Work, snapshots: Iterable[Snapshot], *, dtype: str, force: bool
) -> dict[str, Any] | None:
    """All epochs, inputs and labels in one artifact; the manifest, None for standard output."""
    tensors, epochs = {}, {}
    for snapshot in snapshots:
        tensors.update(_tensors(snapshot))
        epochs[str(snapshot.epoch)] = snapshot.facts
    inputs, labels = _rows(work)
    facts = {**_facts(work), "epochs": epochs}
    return write_activations(
        target, {INPUTS: inputs, **tensors}, {LABEL: labels}, facts=facts, history=work.history, dtype=dtype,
        force=force,
    )  # fmt: skip


def write_folder(
    target: str, work: Work, snapshots: Iterable[Snapshot], *, dtype: str, force: bool
) -> dict[str, Any]:
    """`inputs.safetensors` and `epoch_EEEEE.safetensors`, whole or not at all; memory holds one epoch."""
    path = Path(os.path.realpath(target))
    if path.is_dir() and any(path.iterdir()) and not force:
        raise usage(f"{target} exists and is not empty", "use --force to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".{path.name}.tmp-{os.getpid()}"
    folder.mkdir()
    try:
        inputs, labels = _rows(work)
        write_activations(
            str(folder / "inputs.safetensors"), {INPUTS: inputs}, {LABEL: labels}, facts=_facts(work)
        )
        size, count = 0, 0
        for snapshot in snapshots:
            facts = {**_facts(work), "epoch": snapshot.epoch, "epochs": {str(snapshot.epoch): snapshot.facts}}
            name = str(folder / f"epoch_{snapshot.epoch:05d}.safetensors")
            done = write_activations(name, _tensors(snapshot), facts=facts, history=work.history, dtype=dtype)
            size, count = size + (done or {}).get("bytes", 0), count + 1
        replace_directory(folder, path)
    finally:
        if folder.exists():
            remove_tree(folder)
    return {"bntools": 1, "kind": "activations", "path": str(path), "epochs": count, "bytes": size}


def _tensors(snapshot: Snapshot) -> dict[str, Any]:
    return {f"epoch.{snapshot.epoch}.layer.{name}": rows for name, rows in snapshot.layers.items()}


def _rows(work: Work) -> tuple[Any, Any]:
    rows = recorded_rows(work.data, work.settings)
    return np.asarray(rows.x, np.float32).reshape(len(rows), -1), rows.y


def _facts(work: Work) -> dict[str, Any]:
    data, settings = work.data, work.settings
    return {"model": settings.network, "site": settings.activation, "encoder": "record", "sha256": data.sha256,
            "settings": asdict(settings)}  # fmt: skip
