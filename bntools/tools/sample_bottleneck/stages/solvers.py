"""One stage: from its first noise level to its last along the velocity."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
Watch = Callable[[Tensor, int, float], None]
"""Called after every step with the field, the step's number from 1 on, and the level it reached."""


def euler(velocity: Velocity, x: Tensor, times: tuple[float, ...], watch: Watch) -> Tensor:
    """x + (t' - t) v(x, t)."""
    for step, (t, after) in enumerate(itertools.pairwise(times), 1):
        x = x + (after - t) * velocity(x, t)
        watch(x, step, after)
    return x


def heun(velocity: Velocity, x: Tensor, times: tuple[float, ...], watch: Watch) -> Tensor:
    """The mean of the velocities at both ends; a last step to level 0 is Euler's, since no velocity is known there."""
    for step, (t, after) in enumerate(itertools.pairwise(times), 1):
        v = velocity(x, t)
        guess = x + (after - t) * v
        x = guess if after == 0 else x + (after - t) / 2 * (v + velocity(guess, after))
        watch(x, step, after)
    return x


def adams(velocity: Velocity, x: Tensor, times: tuple[float, ...], watch: Watch) -> Tensor:
    """Adams and Bashforth's two steps for uneven levels: the last velocity extrapolates; the first step is Euler's."""
    last: tuple[Tensor, float] | None = None
    for step, (t, after) in enumerate(itertools.pairwise(times), 1):
        v = velocity(x, t)
        slope = 0.0 if last is None else (v - last[0]) * ((after - t) / (2 * (t - last[1])))
        last = v, t
        x = x + (after - t) * (v + slope)
        watch(x, step, after)
    return x


SOLVERS = {"euler": euler, "heun": heun, "ab2": adams}


def evaluations(solver: str, times: tuple[float, ...]) -> int:
    """Velocities that a stage needs."""
    steps = len(times) - 1
    return steps if solver != "heun" else 2 * steps - (times[-1] == 0)
