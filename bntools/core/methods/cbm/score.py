"""A bottleneck on labelled rows: accuracy at each sparsity beside its baselines, and how far its concepts are true."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.methods.cbm import inputs, metrics
from bntools.core.methods.cbm.bottleneck import Bottleneck, Floats
from bntools.core.methods.cbm.inputs import Embeddings, Truth


def class_indices(model: Bottleneck, data: Embeddings) -> NDArray[np.int64]:
    """The labels of rows as indices of the model's classes. Raises BnError (exit 3) for a class it does not know."""
    return indices_of(model.labels, data)


def indices_of(known: NDArray[np.int64], data: Embeddings) -> NDArray[np.int64]:
    """The labels of rows as indices into `known`. Raises BnError (exit 3) for a label that is not there."""
    labels = data.need_labels()
    order = np.argsort(known)
    place = np.clip(np.searchsorted(known[order], labels), 0, len(order) - 1)
    indices = order[place]
    unknown = labels[known[indices] != labels]
    if len(unknown):
        shown = ", ".join(map(str, known[:8].tolist()))
        raise bad_input(
            f"{data.label}: label {unknown[0]} is no class of the bottleneck", f"it knows {shown}, ..."
        )
    return indices


def check(model: Bottleneck, data: Embeddings) -> None:
    """Refuse (exit 3) data of another width or encoder than the bottleneck was built on."""
    check_encoder(model.facts, model.vectors.shape[1], data)


def check_encoder(facts: dict[str, Any], width: int, data: Embeddings) -> None:
    """Refuse (exit 3) data of another width, or of another encoder than the facts of a bottleneck name."""
    inputs.same_width(width, data.x.shape[1], ("the bottleneck", data.label))
    encoder = facts.get("encoder")
    if isinstance(encoder, dict):
        inputs.same_encoder(encoder, data.facts, ("the bottleneck", data.label))


def score(model: Bottleneck, data: Embeddings, truth: Truth | None = None) -> dict[str, Any]:
    """The report of `eval` on a bottleneck (bntools-eval(1)); what needs annotations is null without them."""
    check(model, data)
    y = class_indices(model, data)
    logits, x = model.logits(data.x), model.prepare(data.x)
    scores = model.concepts(data.x)
    parts = metrics.contributions(model, scores, logits.argmax(1))
    report = {
        "kind": "cbm-eval", "rows": len(y), "classes": len(model.classes), "concepts": len(model.names),
        "nec": model.nec, "method": model.facts.get("method"), "accuracy": metrics.accuracy(logits, y),
        "path": _path(model, scores, y, x),
        "baselines": {
            name: metrics.accuracy(x @ weight.T + bias, y)
            for name, (weight, bias) in model.baselines.items() if not name.startswith("random_concepts_")
        },
        "coverage": metrics.coverage(parts), "clm": None,
    }  # fmt: skip
    if model.residual is not None:
        report["without_residual"] = metrics.accuracy(scores @ model.weight.T + model.bias, y)
    return report | (_annotated(model, scores, y, truth, parts) if truth is not None else _NOTHING)


_NOTHING = dict.fromkeys(("cem", "cgim", "concept_auc", "impurity", "true_concepts", "leakage"))


def _path(model: Bottleneck, scores: Floats, y: NDArray[np.int64], x: Floats) -> list[dict[str, Any]]:
    """Accuracy at each sparsity, of random concepts too, and their difference on the same rows."""
    rows = []
    for nec, (weight, bias) in model.heads.items():
        hit = (scores @ weight.T + bias).argmax(1) == y
        row: dict[str, Any] = {"nec": int(nec), "accuracy": metrics.mean_error(hit)}
        other = model.baselines.get(f"random_concepts_{nec}")
        if other is not None:
            guess = (x @ other[0].T + other[1]).argmax(1) == y
            row["random_concepts"] = metrics.mean_error(guess)
            row["gain"] = metrics.mean_error(hit.astype(np.int64) - guess.astype(np.int64))
        rows.append(row)
    return rows


def _annotated(
    model: Bottleneck, scores: Floats, y: NDArray[np.int64], truth: Truth, parts: Floats
) -> dict[str, Any]:
    mine, present = truth.of(model.names)
    if not len(mine):
        raise bad_input(
            "no annotated concept has the name of a concept of the bottleneck", "bntools info shows them"
        )
    area = metrics.auc(scores[:, mine], present)
    full = bool((present >= 0).all())
    report: dict[str, Any] = {
        "annotated": len(mine), "cem": metrics.cem(parts[:, mine], present),
        "cgim": metrics.cgim(model.weight[:, mine], metrics.attributes(present, y, len(model.classes))),
        "concept_auc": {"mean": float(np.nanmean(area)), "least": float(np.nanmin(area))},
        "impurity": metrics.impurity(scores[:, mine], present) if full else None,
        "true_concepts": None, "leakage": None,
    }  # fmt: skip
    if np.isfinite(model.levels[mine]).all():
        told = intervened(model, scores, mine, present)
        report["true_concepts"] = metrics.accuracy(told @ model.weight.T + model.bias, y)
        report["leakage"] = float(
            ((scores @ model.weight.T + model.bias).argmax(1) == y).mean() - report["true_concepts"]["value"]
        )
    return report


def intervened(
    model: Bottleneck, scores: Floats, concepts: NDArray[np.int64], present: NDArray[Any]
) -> Floats:
    """Standardised scores [N, K] with the annotated concepts set to the level of their annotation."""
    result = scores.copy()
    levels = standard_levels(model, concepts)
    told = np.where(present > 0, levels[:, 1], levels[:, 0])
    result[:, concepts] = np.where(present >= 0, told, result[:, concepts])
    return result


def standard_levels(model: Bottleneck, concepts: NDArray[np.int64]) -> Floats:
    """Standardised scores [k, 2] of an absent and a present concept."""
    std = model.std[concepts]
    gain = np.where(std > 0, model.scale[concepts] / np.where(std > 0, std, 1), 0)
    return ((model.levels[concepts] - model.mean[concepts, None]) * gain[:, None]).astype(np.float32)
