"""Contributions of concepts to one row's decision or to all, and the smallest change that overturns one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import usage
from bntools.core.methods.cbm import metrics
from bntools.core.methods.cbm.bottleneck import BLOCK, Bottleneck, Floats, topmost
from bntools.core.methods.cbm.inputs import Embeddings

_RANGE = 3.0
"""Counterfactuals move a concept within so many deviations of its training mean."""
_OTHER = 64
"""Rivals a counterfactual is sought for, nearest first."""


def local(model: Bottleneck, data: Embeddings, row: int, top: int) -> dict[str, Any]:
    """One row: its class, what each concept adds to that class's logit, and what would change the decision.

    logit = bias + residual + sum of contributions, to rounding. Raises BnError (exit 2) for a row that is not there.
    """
    if not 0 <= row < len(data.x):
        raise usage(f"no row {row} in {data.label}", f"rows are 0 to {len(data.x) - 1}")
    x = data.x[row : row + 1]
    scores = model.concepts(x)[0]
    logits = model.logits(x)[0].astype(np.float64)
    chosen = int(logits.argmax())
    parts = (scores * model.weight[chosen]).astype(np.float64)
    order = topmost(np.abs(parts), top)
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    truth = None
    if data.labels is not None:
        match = np.flatnonzero(model.labels == data.labels[row])
        truth = model.classes[match[0]] if len(match) else None
    return {
        "kind": "cbm-explanation", "row": row, "name": data.names[row] if data.names else None,
        "predicted": model.classes[chosen], "truth": truth, "probability": float(probability[chosen]),
        "logit": float(logits[chosen]), "bias": float(model.bias[chosen]),
        "residual": float(logits[chosen] - model.bias[chosen] - parts.sum()) if model.residual is not None else 0.0,
        "contributions": [
            {"concept": model.names[k], "score": float(scores[k]), "weight": float(model.weight[chosen, k]),
             "contribution": float(parts[k])} for k in order if parts[k] != 0
        ],
        "rest": float(parts.sum() - parts[order].sum()), "coverage": metrics.coverage(parts[None].astype(np.float32)),
        "rivals": [
            {"class": model.classes[c], "probability": float(probability[c])} for c in topmost(logits, 6) if c != chosen
        ][:5],
        "counterfactual": counterfactual(model, scores, logits),
    }  # fmt: skip


def counterfactual(model: Bottleneck, scores: Floats, logits: NDArray[np.float64]) -> dict[str, Any] | None:
    """The fewest concepts to move, each within 3 deviations of its mean, for another class to win.

    For a rival r the margin falls by (W_r - W_c) times each move; the moves that gain most, in order, are fewest. The
    last is moved only as far as needed. Of rivals with equally few, the one with the shortest move in deviations.
    """
    chosen, best = int(logits.argmax()), None
    for rival in [int(c) for c in topmost(logits, _OTHER + 1) if c != chosen]:
        pull = (model.weight[rival] - model.weight[chosen]).astype(np.float64) * model.live
        goal = np.clip(np.sign(pull) * _RANGE, -_RANGE, _RANGE)
        gain = np.maximum(pull * (goal - scores), 0)
        order = topmost(gain, len(gain))
        reached = np.cumsum(gain[order])
        margin = float(logits[chosen] - logits[rival]) + 1e-4
        if reached[-1] < margin:
            continue
        count = int(np.searchsorted(reached, margin)) + 1
        moved = order[:count]
        change = (goal - scores)[moved].astype(np.float64)
        change[-1] *= (margin - (reached[count - 2] if count > 1 else 0.0)) / gain[moved[-1]]
        length = float(np.abs(change).sum())
        if best is None or (count, length) < (best[0], best[1]):
            best = (count, length, rival, moved, change)
    if best is None:
        return None
    _, length, rival, moved, change = best
    return {
        "class": model.classes[rival], "distance": length,
        "changes": [
            {"concept": model.names[k], "from": float(scores[k]), "to": float(scores[k] + step)}
            for k, step in zip(moved, change, strict=True)
        ],
    }  # fmt: skip


def overall(model: Bottleneck, data: Embeddings, top: int) -> dict[str, Any]:
    """All rows: for each class, the positive contributions of concepts over the rows predicted as it."""
    classes, count = len(model.classes), len(model.names)
    totals, rows = np.zeros((classes, count)), np.zeros(classes, np.int64)
    covered: list[tuple[int, dict[str, float]]] = []
    for start in range(0, len(data.x), BLOCK):
        block = data.x[start : start + BLOCK]
        scores, predicted = model.concepts(block), model.predict(block)
        parts = metrics.contributions(model, scores, predicted)
        np.add.at(totals, predicted, np.maximum(parts, 0))
        rows += np.bincount(predicted, minlength=classes)
        covered.append((len(block), metrics.coverage(parts)))
    weights = [size for size, _ in covered]
    return {
        "kind": "cbm-global", "rows": len(data.x), "nec": model.nec,
        "coverage": {k: float(np.average([c[k] for _, c in covered], weights=weights)) for k in covered[0][1]},
        "classes": [
            {"class": model.classes[c], "rows": int(rows[c]), "concepts": [
                {"concept": model.names[k], "share": float(totals[c, k] / max(totals[c].sum(), 1e-30)),
                 "weight": float(model.weight[c, k])} for k in topmost(totals[c], top) if totals[c, k] > 0]}
            for c in range(classes)
        ],
    }  # fmt: skip
