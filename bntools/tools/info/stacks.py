"""What a stack holds: its blocks in order, what is expected of it at a size, and the error plane by plane."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from bntools.core.artifact.header import BLOCK_PREFIX
from bntools.core.artifact.reader import STACK, Artifact
from bntools.core.errors import bad_input, usage
from bntools.core.model.model import Model
from bntools.core.model.open import as_model, open_model
from bntools.core.packing import bitstack, stack
from bntools.core.system.sizes import parse_bytes


def describe(
    opened: Artifact | Path | dict[str, Any],
    label: str,
    budgets: str | None,
    blocks: bool,
    against: str | None,
) -> dict[str, Any]:
    """Keys `budgets`, `blocks` and `errors` of the report. Raises BnError: exit 2 on what is no stack."""
    if not isinstance(opened, Artifact) or opened.kind != STACK:
        raise usage(
            f"--budget and --blocks are for stacks, and {label} is none", "bntools stack-compress makes one"
        )
    facts: dict[str, Any] = {}
    if budgets is not None:
        sizes = [parse_bytes(text) for text in budgets.split(",")]
        facts["budgets"] = [_expected(opened, size) for size in sizes]
    model = as_model(opened, label)
    if blocks:
        facts["blocks"] = [
            _block(opened, model, name) for name in opened.names() if name.startswith(BLOCK_PREFIX)
        ]
    if against is not None:
        facts["errors"] = _errors(model, open_model(against))
    return facts


def _expected(source: Artifact, size: int) -> dict[str, Any]:
    """BnError (exit 3) naming the least size where `size` is below the base."""
    with source.within(size) as part:
        model = as_model(part, part.label)
        bits = {"linear": model.bits_per_weight(model.linears), "model": model.bits_per_weight()}
        kl = stack.Curve(source).expected(part.nbytes)
        return {
            "bytes": part.nbytes,
            "bits_per_weight": bits,
            "kl": None if kl is None else float(f"{kl:.4g}"),
        }


_BLOCK_NAME = re.compile(r"(.+)/(\d{1,4})/(\d{1,9})", re.ASCII)  # matrix, plane, band


def _block(source: Artifact, model: Model, tensor: str) -> dict[str, Any]:
    parts = _BLOCK_NAME.fullmatch(tensor.removeprefix(BLOCK_PREFIX))
    if parts is None:
        raise bad_input(f"block {tensor!r} belongs to no matrix of {source.label}")
    name, plane, band = parts.groups()
    spec, entry = model.packing.get(name), source.entries[tensor]
    there = source.part_bytes(tensor)
    place = {"bytes": there, "offset": source.header.size + entry.start}
    if isinstance(spec, bitstack.BitstackSpec):
        return {"name": name, "level": int(plane), **place}
    if not isinstance(spec, stack.StackSpec):
        raise bad_input(f"block {tensor!r} belongs to no matrix of {source.label}")
    first = spec.band_rows(int(band)).start
    return {"name": name, "plane": int(plane), "rows": [first, first + there // spec.width], **place}


def _errors(model: Model, original: Model) -> list[dict[str, Any]]:
    """||W_p - W|| / ||W|| of every matrix with 0, 1, ... planes, or with 1, 2, ... levels."""
    rows = []
    for name, spec in model.packing.items():
        assert isinstance(spec, stack.StackSpec | bitstack.BitstackSpec)
        if name not in original.entries or original.entries[name].shape != spec.shape:
            raise bad_input(
                f"{original.label} has no {name} of shape {list(spec.shape)}", "--against the original"
            )
        truth = original.tensor(name, torch.float32)
        errors = []
        depths = range(spec.planes + 1) if isinstance(spec, stack.StackSpec) else range(1, spec.levels + 1)
        for planes in depths:
            lost = float(
                (model.tensor(name, torch.float32, planes) - truth).norm() / truth.norm().clamp(min=1e-30)
            )
            errors.append(float(f"{lost:.4g}"))
        rows.append({"name": name, "errors": errors})
    return rows
