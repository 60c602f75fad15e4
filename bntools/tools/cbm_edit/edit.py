"""Edits by hand: weights taken out, concepts scaled, rows rescaled; each with what it changed."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

import numpy as np

from bntools.core.errors import usage
from bntools.core.methods.cbm.bottleneck import Bottleneck

Changes = list[dict[str, Any]]


def prune(model: Bottleneck, pairs: list[tuple[str, str]], *, normalize: bool) -> tuple[Bottleneck, Changes]:
    """Set weights of (class, concept) to 0, class `*`: of all classes, in every head of the table.

    normalize: rescale what remains of a class's row to the l1 norm it had (arXiv 2205.15480). Raises BnError (exit 2)
    for a name that is not there, and where the weight is 0 already.
    """
    cells: list[tuple[int, int]] = []
    changes: Changes = []
    for name, concept in pairs:
        k = _find(concept, model.names, "concept")
        rows = range(len(model.classes)) if name == "*" else [_find(name, model.classes, "class")]
        live = [c for c in rows if model.weight[c, k] != 0]
        if not live:
            where = "any class" if name == "*" else name
            raise usage(f"{concept} has no weight in {where}", "bntools cbm-explain --global shows what has")
        cells += [(c, k) for c in live]
        changes += [
            {
                "edit": "prune",
                "class": model.classes[c],
                "concept": concept,
                "from": float(model.weight[c, k]),
                "to": 0.0,
            }
            for c in live
        ]
    weight = _cut(model.weight, cells, normalize)
    heads = {nec: (_cut(old, cells, normalize), bias) for nec, (old, bias) in model.heads.items()}
    return replace(model, weight=weight, heads=heads), changes


def _cut(weight: Any, cells: list[tuple[int, int]], normalize: bool) -> Any:
    result = weight.copy()
    for c, k in cells:
        result[c, k] = 0
    if normalize:
        for c in {c for c, _ in cells}:
            left = np.abs(result[c]).sum()
            if left > 0:
                result[c] *= np.abs(weight[c]).sum() / left
    return result


def scale(model: Bottleneck, factors: dict[str, float]) -> tuple[Bottleneck, Changes]:
    """Multiply standardised scores of concepts, in all classes; 0 switches a concept off."""
    result, changes = model.scale.copy(), []
    for concept, factor in factors.items():
        k = _find(concept, model.names, "concept")
        changes.append(
            {"edit": "scale", "concept": concept, "from": float(result[k]), "to": float(result[k] * factor)}
        )
        result[k] *= factor
    return replace(model, scale=result), changes


def drop_residual(model: Bottleneck) -> tuple[Bottleneck, Changes]:
    """Leave only what goes through concepts. Raises BnError (exit 2) where there is no residual."""
    if model.residual is None:
        raise usage("the bottleneck has no residual", "--method pcbm-h makes one")
    return replace(model, residual=None), [{"edit": "drop-residual"}]


def _find(name: str, names: list[str], what: str) -> int:
    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name, names, 1)
    raise usage(f"no {what} {name!r}", f"did you mean {near[0]!r}?" if near else "bntools info shows them")
