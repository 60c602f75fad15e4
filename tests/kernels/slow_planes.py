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


def read(level: int, code: int, planes: int) -> list[float]:
    """A weight in steps at every depth: the level, moved by a quarter, an eighth and so on, up where the bit is set."""
    found = [float(level)]
    for plane in range(planes):
        up = code >> (planes - 1 - plane) & 1
        found.append(found[-1] + (0.5 if up else -0.5) * 2.0 ** -(plane + 1))
    return found


def together(
    levels: np.ndarray, bits: np.ndarray, planes: int, targets: Sequence[np.ndarray], hessian: np.ndarray,
    steps: np.ndarray, weights: np.ndarray, scale: float, price: np.ndarray,
) -> tuple[list[int], list[int]]:  # fmt: skip
    """One round over one row, the last input first: of the level at hand and its neighbours, and of all their bits,
    those of the least sum of weighted squared errors over the depths, and price[input, |level|]."""
    now = np.array([read(*pair, planes) for pair in zip(levels, bits, strict=True)]).T * steps  # [depth, in]
    found = [(int(q), int(code)) for q, code in zip(levels, bits, strict=True)]
    for j in reversed(range(len(levels))):
        curve, step = float(hessian[j, j]), float(steps[j])
        best = [now[d, j] - (now[d] - targets[d]) @ hessian[:, j] / curve for d in range(planes + 1)]

        costs = {
            (q, code): price[j, min(abs(q), 127)]
            + curve / scale * sum(
                float(weight) * (value * step - want) ** 2
                for weight, value, want in zip(weights, read(q, code, planes), best, strict=False)
            )
            for q in range(found[j][0] - 1, found[j][0] + 2)
            for code in range(1 << planes)
        }  # fmt: skip
        choice = min(costs, key=costs.__getitem__)
        if costs[choice] < costs[found[j]] * (1 - 1e-5):
            found[j] = choice
        now[:, j] = np.array(read(*found[j], planes)) * step
    return [q for q, _ in found], [code for _, code in found]
