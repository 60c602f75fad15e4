"""Scores of probabilities against 0/1 outcomes: AUC with DeLong's errors, log loss, calibration; RMSE of numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BINS = 15


class Placements(NamedTuple):
    """For each positive row the share of negatives below it, for each negative that of positives above it."""

    positive: Floats
    negative: Floats

    @property
    def auc(self) -> float:
        return float(self.positive.mean())


def placements(y: NDArray[Any], score: NDArray[Any]) -> Placements:
    """Ties count a half (DeLong 1988 by midranks, Sun and Xu 2014)."""
    positive, negative = np.sort(score[y == 1]), np.sort(score[y != 1])

    def below(of: NDArray[Any], among: NDArray[Any]) -> Floats:
        return (np.searchsorted(among, of, "left") + np.searchsorted(among, of, "right")) / 2

    up = below(score[y == 1], negative) / max(len(negative), 1)
    down = 1 - below(score[y != 1], positive) / max(len(positive), 1)
    return Placements(up, down)


def _error(positive: Floats, negative: Floats) -> float:
    return float(np.sqrt(positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)))


def auc(y: NDArray[Any], score: NDArray[Any]) -> dict[str, float]:
    """AUC with its 95 % interval (DeLong)."""
    where = placements(y, score)
    half = 1.96 * _error(*where)
    return {"value": where.auc, "low": max(where.auc - half, 0.0), "high": min(where.auc + half, 1.0)}


def auc_difference(y: NDArray[Any], score: NDArray[Any], other: NDArray[Any]) -> dict[str, float]:
    """AUC(score) - AUC(other) on the same rows, with the standard error of the paired difference (DeLong)."""
    a, b = placements(y, score), placements(y, other)
    up, down = a.positive - b.positive, a.negative - b.negative
    return {"mean": float(up.mean()), "se": _error(up, down)}


def log_loss(y: NDArray[Any], logit: NDArray[Any]) -> float:
    """Mean of log(1 + e^z) - y z, in nats."""
    z = np.asarray(logit, np.float64)
    return float((np.logaddexp(0, z) - y * z).mean())


def calibration_error(y: NDArray[Any], p: NDArray[Any]) -> float:
    """Expected calibration error over bins of equal counts."""
    parts = np.array_split(np.argsort(p, kind="stable"), min(_BINS, len(p)))
    return float(sum(abs(y[part].mean() - p[part].mean()) * len(part) for part in parts) / len(p))


def metrics(y: NDArray[Any], output: NDArray[Any], task: str) -> dict[str, Any]:
    """binary: auc, logloss, rmse of the probability, ece; regression: rmse with that of the mean."""
    if task == "regression":
        rmse = float(np.sqrt(np.square(output - y).mean()))
        return {"rmse": rmse, "rmse_of_mean": float(y.std())}
    p = 1 / (1 + np.exp(-np.asarray(output, np.float64)))
    result: dict[str, Any] = {
        "logloss": log_loss(y, output), "rmse": float(np.sqrt(np.square(p - y).mean())),
        "ece": calibration_error(y, p), "rate": float(y.mean()),
    }  # fmt: skip
    if 0 < y.mean() < 1:
        result = {"auc": auc(y, output)} | result
    return result
