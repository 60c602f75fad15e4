"""Samples of a generative model as an artifact: finished latents or pixels, how they were drawn, and what they cost.

The kind is `samples`. Tensors: x0 [N, C, (F,) H, W] float32, the samples; optional label [N] int64, the class asked
for; optional others of the shape of x0, the same seeds by other ways (full: full resolution). `bntools.samples` holds
{model, method, seed, stages, nfe, wall, cost, rows}; a row {name, tensor, nfe, cost, wall} says what each tensor is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import bad_input

KIND = "samples"
MAIN, LABEL, FULL = "x0", "label", "full"
FILE = "latents.safetensors"
"""The artifact in a folder that sample-bottleneck wrote, beside its pictures."""


class Samples(NamedTuple):
    """x: {tensor: [N, C, ..., H, W] float32}, x0 among them; label [N] or None; facts: `bntools.samples`; history."""

    x: dict[str, NDArray[np.float32]]
    label: NDArray[np.int64] | None
    facts: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What each tensor is: {name, tensor, ...}; of files without the list, one row a tensor."""
        listed = [dict(row) for row in self.facts.get("rows", []) if row.get("tensor") in self.x]
        return listed or [{"name": name, "tensor": name} for name in self.x]


def read_samples(source: Artifact) -> Samples:
    """Everything of an open artifact. Raises BnError (exit 3) without x0, for other shapes, NaN or infinity."""
    names = source.names()
    if MAIN not in names:
        raise bad_input(f"{source.label} has no tensor {MAIN}", "bntools sample-bottleneck writes samples")
    x: dict[str, NDArray[np.float32]] = {}
    shape = tuple(source.entries[MAIN].shape)
    for name in names:
        if name != LABEL and tuple(source.entries[name].shape) == shape:
            x[name] = source.tensor(name).float().numpy()
            bad = int((~np.isfinite(x[name])).sum())
            if bad:
                raise bad_input(f"{source.label}: {bad} numbers of {name} are not finite")
    if len(shape) < 3 or not shape[0]:
        raise bad_input(f"{source.label}: {MAIN} has shape {list(shape)}, not [N, C, H, W]")
    label = source.tensor(LABEL).numpy().astype(np.int64) if LABEL in names else None
    if label is not None and label.shape != shape[:1]:
        raise bad_input(f"{source.label}: label has shape {list(label.shape)}, not [{shape[0]}]")
    return Samples(x, label, source.json("bntools.samples", dict), source.history)


def artifact_of(path: Path) -> Path:
    """The artifact that a path means: of a folder that sample-bottleneck wrote, the file in it."""
    return path / FILE if path.is_dir() else path


def write_samples(
    out: Writer, x: Mapping[str, Any], label: Any | None, *, facts: Mapping[str, Any],
    history: list[dict[str, Any]] | None = None,
) -> None:  # fmt: skip
    """Add tensors and metadata to an open writer of kind `samples`. x: {name: tensor}, x0 first."""
    import torch

    if MAIN not in x:
        raise ValueError(f"samples without {MAIN}")
    out.describe("samples", dict(facts))
    if history is not None:
        out.describe("history", history)
    for name, value in x.items():
        out.add(name, torch.as_tensor(value).float())
    if label is not None:
        out.add(LABEL, torch.as_tensor(label).long())
