"""Levels and planes spelled out, one row of W and one input at a time: what the fast versions must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def feedback(row: np.ndarray, factor: np.ndarray, choose: Callable[[int, float], float]) -> list[float]:
    """GPTQ (arXiv 2210.17323, algorithm 1) over one row in float64; choose(input, target) is the value taken."""
    rest, found = row.astype(np.float64), []
    for j in range(len(row)):
        value = choose(j, rest[j])
        found.append(value)
        rest[j + 1 :] -= (rest[j] - value) / factor[j, j] * factor[j, j + 1 :]
    return found


def descend(
    values: Sequence[float],
    target: np.ndarray,
    hessian: np.ndarray,
    choose: Callable[[int, float, float], float],
) -> list[float]:
    """One round of coordinate descent over one row, the last input first; choose(input, best target, value now)."""
    now = np.array(values, dtype=np.float64)
    for j in reversed(range(len(now))):
        slope = (now - target) @ hessian[:, j]
        now[j] = choose(j, now[j] - slope / hessian[j, j], now[j])
    return now.tolist()


def sign(half: np.ndarray) -> Callable[..., float]:
    """The nearer of plus and minus half."""
    return lambda j, target, *now: float(half[j]) if target > 0 else -float(half[j])


def level(steps: np.ndarray, price: np.ndarray, weights: np.ndarray) -> Callable[..., float]:
    """The value of least weight (t / step - q)^2 + price[input, |q|]: the nearest, the next towards 0, 0, or the one
    at hand."""

    def choose(j: int, target: float, *now: float) -> float:
        near = int(np.rint(target / steps[j]))
        offered = [near, near - int(np.sign(near)), 0, *(round(value / steps[j]) for value in now)]
        cost = [weights[j] * (target / steps[j] - q) ** 2 + price[j, min(abs(q), 127)] for q in offered]
        return offered[int(np.argmin(cost))] * float(steps[j])

    return choose
