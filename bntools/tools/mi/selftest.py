"""What every estimate of mutual information must satisfy, asked of each estimator on the user's own rows.

Data processing, additivity, masking, invariance and permutation (Song and Ermon 2020; spec of each in its function).
An estimator that fails one has no vote in the spread of the figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.information.estimators import DEFAULT, ESTIMATORS, Estimation
from bntools.core.information.variables import Variable, look_at

Floats = NDArray[np.float64]
Estimate = Callable[[Floats, Floats], float]

CONTINUOUS = ("ksg", "gaussian", "t-copula", "corrected", "reference")
TOLERANCE = 0.1
"""Share of the value by which a property may be missed, and half of it in nats."""


def selftest(
    x: NDArray[Any], y: NDArray[Any], settings: Estimation = DEFAULT, *, names: tuple[str, ...] = CONTINUOUS
) -> dict[str, dict[str, Any]]:
    """For each estimator {value, tests: {test: {expected, value, passed}}, passed}, in nats."""
    first, second = look_at(x, "x", False).points, look_at(y, "y", False).points
    results = {}
    for name in names:

        def estimate(a: Floats, b: Floats, name: str = name) -> float:
            first, second = (Variable(np.ascontiguousarray(part), None, 0.0, ()) for part in (a, b))
            return ESTIMATORS[name](first, second, settings, np.random.default_rng(settings.seed))

        value = estimate(first, second)
        tests = {
            test: function(estimate, first, second, value, settings.seed) for test, function in TESTS.items()
        }
        passed = all(entry["passed"] for entry in tests.values())
        results[name] = {"value": value, "tests": tests, "passed": passed}
    return results


def permutation(estimate: Estimate, x: Floats, y: Floats, value: float, seed: int) -> dict[str, Any]:
    """Rows of y in another order: nothing is left."""
    null = estimate(x, y[np.random.default_rng([seed, 1]).permutation(len(y))])
    return _judged(0.0, null, value)


def invariance(estimate: Estimate, x: Floats, y: Floats, value: float, seed: int) -> dict[str, Any]:
    """A rotation of x by the principal axes and a cubic map of y's columns change nothing."""
    turned = (x - x.mean(0)) @ np.linalg.eigh(np.cov(x.T).reshape(x.shape[1], -1))[1]
    scaled = (y - y.mean(0)) / y.std(0)
    return _judged(value, estimate(turned, scaled + np.power(scaled, 3) / 3), value)


def processing(estimate: Estimate, x: Floats, y: Floats, value: float, seed: int) -> dict[str, Any]:
    """y beside a noisy copy of itself tells no more of x than y does."""
    noise = np.random.default_rng([seed, 2]).standard_normal(y.shape) * y.std(0)
    return _judged(value, estimate(x, np.hstack([y, y + noise])), value)


def additivity(estimate: Estimate, x: Floats, y: Floats, value: float, seed: int) -> dict[str, Any]:
    """Two independent halves side by side tell as much as both halves."""
    order = np.random.default_rng([seed, 3]).permutation(len(x) // 2 * 2)
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    alone = estimate(x[first], y[first]) + estimate(x[second], y[second])
    together = estimate(np.hstack([x[first], x[second]]), np.hstack([y[first], y[second]]))
    return _judged(alone, together, 2 * value)


def masking(estimate: Estimate, x: Floats, y: Floats, value: float, seed: int) -> dict[str, Any]:
    """The fewer rows of y are swapped for others, the more is left: at 0, a third and two thirds."""
    rng = np.random.default_rng([seed, 4])
    left = []
    for share in (0, 1 / 3, 2 / 3):
        masked = y.copy()
        rows = np.flatnonzero(rng.random(len(y)) < share)
        masked[rows] = y[rng.permutation(rows)]
        left.append(estimate(x, masked))
    slack = TOLERANCE * max(abs(value), 0.5)
    falls = left[1] <= left[0] + slack and left[2] <= left[1] + slack
    return {"expected": left[0], "value": left[2], "passed": bool(falls and math.isfinite(sum(left)))}


def _judged(expected: float, value: float, scale: float) -> dict[str, Any]:
    slack = TOLERANCE * max(abs(scale), 0.5)
    return {"expected": expected, "value": value, "passed": bool(abs(value - expected) <= slack)}


TESTS = {
    "permutation": permutation, "invariance": invariance, "processing": processing,
    "additivity": additivity, "masking": masking,
}  # fmt: skip
