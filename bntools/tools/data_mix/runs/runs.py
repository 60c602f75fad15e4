"""A table of runs: the mixture each was trained on, its size, and the metric it reached."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input

Floats = NDArray[np.float64]

TOLERANCE = 1e-6
"""By which the weights of a run may miss a sum of 1."""


@dataclass(frozen=True)
class Runs:
    """weights [runs, sources], n [runs] rows or tokens, metric [runs] of one kind as the user measured it.

    domains: losses [runs] by validation domain, where the runs have them. failed: where runs without a metric stood.
    """

    sources: tuple[str, ...]
    weights: Floats
    n: Floats
    metric: Floats
    kind: str
    seed: NDArray[np.int64]
    domains: dict[str, Floats] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.n)

    @property
    def sizes(self) -> Floats:
        """Distinct sizes, ascending."""
        return np.unique(self.n)

    @property
    def lower(self) -> Floats:
        """The metric as the laws see it, less is better: 1 - accuracy, else itself."""
        return 1 - self.metric if self.kind == "accuracy" else self.metric

    def at(self, rows: NDArray[Any]) -> Runs:
        """Some of the runs."""
        return replace(
            self, weights=self.weights[rows], n=self.n[rows], metric=self.metric[rows], seed=self.seed[rows],
            domains={name: values[rows] for name, values in self.domains.items()},
        )  # fmt: skip

    def digest(self) -> str:
        """Hexadecimal sha256 of what a fit sees, in the order of the table."""
        hasher = hashlib.sha256("\0".join((self.kind, *self.sources)).encode())
        for array in (self.weights, self.n, self.metric, *self.domains.values()):
            hasher.update(np.ascontiguousarray(array, float).tobytes())
        return hasher.hexdigest()


def checked(runs: Runs, normalize: bool = False) -> Runs:
    """The runs with weights that add up to exactly 1. Raises BnError (exit 3) naming the run."""
    if len(runs.sources) < 2:
        raise bad_input(
            f"one source, {', '.join(runs.sources) or 'none'}: there is nothing to mix",
            "weights name two sources or more",
        )
    _each(runs, (runs.weights < 0).any(1) | ~np.isfinite(runs.weights).all(1), "a weight below 0")
    total = runs.weights.sum(1)
    if normalize:
        _each(runs, total <= 0, "weights that are all 0")
    else:
        wrong = np.abs(total - 1) > TOLERANCE
        _each(runs, wrong, "weights that do not add up to 1", "--normalize accepts counts as weights")
    _each(runs, ~(np.isfinite(runs.n) & (runs.n > 0)), "an n that is not above 0")
    if runs.kind in ("error", "accuracy"):
        _each(runs, (runs.metric < 0) | (runs.metric > 1), f"a {runs.kind} outside 0 to 1", "--kind loss?")
    else:
        _each(
            runs,
            runs.metric <= 0,
            f"a {runs.kind} that is not above 0",
            "a score may be shifted by a constant",
        )
    return replace(runs, weights=runs.weights / total[:, None])


def _each(runs: Runs, wrong: NDArray[np.bool_], what: str, hint: str = "") -> None:
    if wrong.any():
        raise bad_input(f"run {int(np.argmax(wrong)) + 1} has {what}", hint)


def half_counts(metric: Floats, trials: Floats) -> Floats:
    """Shares of exactly 0 or 1 moved inside by half a count of their trials, so that a log is finite."""
    half = 0.5 / np.maximum(trials, 1)
    return np.where(metric <= 0, half, np.where(metric >= 1, 1 - half, metric))
