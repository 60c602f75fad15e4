"""What is measured of a bottleneck: accuracy, faithfulness of its concepts, leakage, impurity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.bottleneck import Bottleneck, Floats

Bits = NDArray[Any]
COVERAGES = (0.9, 0.95, 0.99)


def mean_error(values: NDArray[Any]) -> dict[str, float]:
    """{value, se} of a mean over independent rows."""
    values = np.asarray(values, np.float64)
    spread = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"value": float(values.mean()), "se": float(spread) if np.isfinite(spread) else 0.0}


def accuracy(logits: Floats, truth: NDArray[np.int64]) -> dict[str, float]:
    """Share of rows whose largest logit is the truth."""
    return mean_error(logits.argmax(1) == truth)


def contributions(model: Bottleneck, scores: Floats, classes: NDArray[np.int64]) -> Floats:
    """What each concept adds to the logit of the class chosen for its row, [N, K]: they sum to logit - bias."""
    return scores * model.weight[classes]


def coverage(parts: Floats) -> dict[str, float]:
    """Mean number of concepts whose absolute contributions reach 90, 95, 99 % of a row's total."""
    ordered = -np.sort(-np.abs(parts.astype(np.float64)), axis=1)
    total = ordered.sum(1, keepdims=True)
    running = np.cumsum(ordered, 1) / np.where(total > 0, total, 1)
    some = total[:, 0] > 0
    return {
        f"{round(100 * share)}": float(((running < share - 1e-6).sum(1) + 1)[some].mean())
        if some.any()
        else 0.0
        for share in COVERAGES
    }


def cem(parts: Floats, truth: Bits, counts: tuple[int, ...] = (1, 3, 5)) -> dict[str, float]:
    """Concept existence: of the k concepts that contribute most to a row's class, the share annotated as present.

    parts, truth [N, K] over the annotated concepts; -1 in truth is unknown and not counted (arXiv 2501.19271).
    """
    order = np.argsort(-parts, 1, kind="stable")[:, : max(counts)]
    seen = np.take_along_axis(truth, order, 1).astype(np.float64)
    known = (seen >= 0) & (np.take_along_axis(parts, order, 1) > 0)
    result = {}
    for k in counts:
        count = known[:, :k].sum()
        result[str(k)] = float((seen[:, :k] * known[:, :k]).sum() / count) if count else float("nan")
    return result


def cgim(weight: Floats, attributes: NDArray[Any]) -> dict[str, float]:
    """Cosine and correlation of learnt weights with the class-attribute matrix, both [C, K], by class and concept."""
    result = {}
    for name, (a, b) in {"class": (weight, attributes), "concept": (weight.T, attributes.T)}.items():
        result[f"{name}_cosine"] = _row_cosine(a, b)
        result[f"{name}_correlation"] = _row_cosine(
            a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        )
    return result


def _row_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    live = norms > 1e-12
    return float(((a * b).sum(1)[live] / norms[live]).mean()) if live.any() else float("nan")


def attributes(truth: Bits, labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Share of each class's rows in which each concept is present, minus its share in all rows, [C, K]."""
    known = truth >= 0
    base = _mean(truth, known)
    return np.stack([_mean(truth[labels == c], known[labels == c], base) - base for c in range(classes)])


def _mean(truth: Bits, known: NDArray[np.bool_], default: Any = 0.0) -> NDArray[np.float64]:
    count = known.sum(0)
    return np.where(count > 0, (truth * known).sum(0) / np.maximum(count, 1), default)


def auc(scores: Floats, truth: Bits) -> NDArray[np.float64]:
    """Area under the ROC curve of each column of scores [N, K] for truth [N, K]; NaN with one kind of row only."""
    result = np.full(scores.shape[1], np.nan)
    for k in range(scores.shape[1]):
        known = truth[:, k] >= 0
        result[k] = auc_one(scores[known, k], truth[known, k] > 0)
    return result


def auc_one(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties half."""
    count = int(positive.sum())
    if not 0 < count < len(positive):
        return float("nan")
    _, inverse, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def impurity(scores: Floats, truth: Bits) -> float:
    """Oracle impurity: how much better concept i's score tells concept j than concept i itself does.

    Twice the root mean square over pairs of the AUC of j from predicted i minus the AUC of j from true i, each AUC
    taken to whichever side of 1/2 is larger: 0 is as pure as the truth, 1 the worst possible.
    """
    bits = truth.astype(np.float32)
    predicted, oracle = (_pairs(values, truth) for values in (scores, bits))
    off = ~np.eye(len(predicted), dtype=bool) & np.isfinite(predicted) & np.isfinite(oracle)
    return float(2 * np.sqrt(((predicted - oracle)[off] ** 2).mean())) if off.any() else float("nan")


def _pairs(scores: Floats, truth: Bits) -> NDArray[np.float64]:
    """AUC of truth j (columns) by score i (rows), folded above 1/2: by mid-ranks, all pairs in one product."""
    ranks = np.empty(scores.shape)
    for k in range(scores.shape[1]):
        _, inverse, sizes = np.unique(scores[:, k], return_inverse=True, return_counts=True)
        ranks[:, k] = (np.cumsum(sizes) - (sizes - 1) / 2)[inverse]
    positive = (truth > 0).astype(np.float64)
    count = positive.sum(0)
    good = (count > 0) & (count < len(truth))
    area = (ranks.T @ positive - count * (count + 1) / 2) / np.where(good, count * (len(truth) - count), 1)
    return np.where(good, np.maximum(area, 1 - area), np.nan)
