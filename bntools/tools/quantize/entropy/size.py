"""The constant at which the tensors of a model take the size asked: foreseen from a few blocks, then met."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from bntools.core.errors import BnError, usage
from bntools.core.model.model import Model
from bntools.core.packing import entropy
from bntools.core.progress import Progress, no_progress
from bntools.core.system.threads import in_order
from bntools.kernels.entropy import rans, step_classes
from bntools.tools.quantize.entropy import levels
from bntools.tools.quantize.entropy.whole_model import (
    IN_FLIGHT,
    Coded,
    Goal,
    Prepared,
    code,
    coded,
    matrix,
    spec_of,
)

_SAMPLE = 15  # every so many blocks the constant is solved on, before all are coded
_FARTHEST = 4.0  # octaves that the constant may be from the first guess
_PASSES = 8  # over the whole model at most
_SLACK = 0.004  # of the size asked that may stay unused


def solve(model: Model, prepared: Prepared, goal: Goal, progress: Progress = no_progress) -> Coded:
    """The finest levels whose streams and tables fit the goal.

    The rate falls by a bit when the constant doubles, so each pass gives the next constant.
    Raises BnError (exit 2) where no constant makes it fit.
    """
    search = _Search(goal, outlook(model, prepared, goal, progress).alpha)
    best: Coded | None = None
    for _ in range(_PASSES):
        with progress("coding", goal.weights) as step:
            trial = code(model, prepared, prepared.names, search.alpha, step)
        candidate = coded(model, prepared, trial)
        if search.took(candidate.nbytes):
            best = candidate
        if search.done:
            break
    if best is None:
        raise unreachable(goal)
    return best


@dataclass(frozen=True)
class Outlook:
    """The constant that should meet a size, and what the streams would then take. sizes: bytes by tensor. tables:
    bytes."""

    alpha: float
    sizes: dict[str, float]
    tables: int


def outlook(model: Model, prepared: Prepared, goal: Goal, progress: Progress) -> Outlook:
    """What every tensor will take, from what each class of weights takes in every fifteenth block."""
    alpha, sample = _first_alpha(model, prepared, goal.bits), _sample(model, prepared.names)
    with progress("finding the step", sum(model.entries[name].numel for name in sample)) as step:
        trial = code(model, prepared, sample, alpha, step)
    trial.spool.close()
    rows = in_order(lambda name: _class_counts(model, prepared, name, alpha), prepared.names,
                    lambda name: 16 * model.entries[name].numel, IN_FLIGHT)  # fmt: skip
    counted = np.stack(list(rows))
    a_weight = trial.counter.class_bits()
    expected = counted[[prepared.names.index(name) for name in sample]].sum(0) @ a_weight
    a_weight *= trial.counter.bits() / max(expected, 1.0)  # sides, and targets that feedback has moved
    tables = len(entropy.dump_tables(trial.counter.tables(levels.shrinks(prepared.trellis))))
    overhead = np.array([spec_of(model, name, trial.octave).overhead for name in prepared.names])

    def sizes(octaves: float) -> levels.Floats:
        """Bytes of each tensor with steps 2^octaves as large: its weights are then of lower classes."""
        lower = np.interp(
            np.arange(rans.CLASSES) - step_classes.CLASSES * octaves, np.arange(rans.CLASSES), a_weight
        )
        return counted @ lower / 8 + overhead

    low, high = -_FARTHEST, _FARTHEST
    for _ in range(40):
        middle = (low + high) / 2
        fits = tables + sizes(middle).sum() <= (1 - _SLACK / 2) * goal.nbytes
        low, high = (low, middle) if fits else (middle, high)
    return Outlook(alpha * 2**high, dict(zip(prepared.names, sizes(high).tolist(), strict=True)), tables)


def _class_counts(model: Model, prepared: Prepared, name: str, alpha: float) -> levels.Counts:
    return levels.class_counts(matrix(model, name), prepared.metric(name), alpha, prepared.trellis)


def unreachable(goal: Goal) -> BnError:
    """What to raise where no step size is coarse enough."""
    return usage(
        f"the budget leaves {goal.bits:.2f} bits per weight, which no step size reaches", "a larger --budget"
    )


class _Search:
    """The constant whose size just fits: Newton's steps at first, then the secant inside a bracket.

    took: says whether a size is the best that fits so far, and sets the next constant.
    """

    def __init__(self, goal: Goal, alpha: float) -> None:
        self.goal, self.alpha, self.done = goal, alpha, False
        self._fits: tuple[float, int] | None = None  # log2 of the constant, size
        self._over: tuple[float, int] | None = None

    def took(self, size: int) -> bool:
        at, limit = math.log2(self.alpha), self.goal.nbytes
        best = size <= limit and (self._fits is None or size > self._fits[1])
        if size > limit:
            self._over = (at, size)
        elif best:
            self._fits = (at, size)
        self.done = (1 - _SLACK) * limit <= size <= limit
        aim = (1 - _SLACK / 2) * limit
        if self._fits and self._over:
            (low, small), (high, large) = self._fits, self._over
            share = min(max((aim - small) / max(large - small, 1), 0.05), 0.95)
            self.alpha = 2 ** (low + (high - low) * share)
        else:
            self.alpha *= 2 ** (8 * (size - aim) / self.goal.weights)
        return best


def _first_alpha(model: Model, prepared: Prepared, bits: float) -> float:
    """A constant from the weights' size in steps: the entropy of a Gaussian is log2(sigma / step) + 2.05 bits."""
    total = weights = 0.0
    for name in _sample(model, prepared.names):
        one, w = prepared.metric(name), matrix(model, name)
        sigma = math.log2(max(float(w.square().mean().sqrt()), 1e-30))
        steps = torch.from_numpy(one.row).log2().mean() + torch.from_numpy(one.col).log2().mean()
        total += (sigma - float(steps)) * w.numel()
        weights += w.numel()
    return 2 ** (total / weights + 1.8 - bits)


def _sample(model: Model, names: list[str]) -> list[str]:
    """Tensors of every fifteenth block and all that lie in none."""

    def block(name: str) -> int | None:
        return next((int(part) for part in name.split(".") if part.isdigit()), None)

    numbers = sorted({number for name in names if (number := block(name)) is not None})
    chosen = set(numbers[_SAMPLE // 2 :: _SAMPLE]) or set(numbers)
    return [name for name in names if block(name) is None or block(name) in chosen]
