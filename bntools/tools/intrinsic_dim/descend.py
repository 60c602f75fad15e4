"""Training by gradients: all parameters, or d numbers of which they are a fixed function."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.datasets.networks import FlatParameters
from bntools.kernels.counter_random import permutation
from bntools.tools.intrinsic_dim.runs import Job, Outcome

_ORDER_STREAM = 1000
"""The order of epoch e is stream _ORDER_STREAM + e of the run's seed."""
CHECKS = (0.25, 0.5, 0.75)
"""Shares of the steps after which the held-out data are scored and a hopeless run may end."""
OPTIMISM = 1.5
"""A run is hopeless when even so many times its last gain, for each interval that is left, does not reach."""
SLACK = 0.25
"""And this share of the way from where it started to the target on top: the last steps, of small rate, gain most."""


class Task(Protocol):
    """What is learned: examples by number, a loss on some of them, a score on held-out and test data."""

    examples: int
    spans_from_floor: bool

    def loss(self, flat: FlatParameters, rows: NDArray[np.int64]) -> Tensor: ...

    def score(self, flat: FlatParameters, split: str) -> float: ...

    def held_loss(self, flat: FlatParameters) -> float | None: ...


class Subspace:
    """theta = theta_0 + P z with Adam on z; gradients reach z by the adjoint of P, never by autograd.

    Each parameter's gradient is taken as soon as it is there. Beside the module: theta_0 and, for projections whose
    adjoint needs all of it at once, one flat gradient.
    """

    def __init__(
        self, flat: FlatParameters, projection: Any, point: NDArray[np.float32] | None = None
    ) -> None:
        self.flat, self.projection = flat, projection
        self.theta0 = flat.theta.clone()
        pieces = getattr(projection, "piecewise", False)
        self._sums = projection.sums() if pieces else None
        self._gradient = torch.empty(0 if pieces else flat.size)
        start = np.zeros(projection.dim, np.float32) if point is None else point
        self.z = torch.from_numpy(start.astype(np.float32))
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._taker(a, b))
            for parameter, (_, a, b) in zip(flat.parameters, flat.spans, strict=True)
        ]
        self._adam = torch.optim.Adam([self.z], fused=True)
        self._place()

    def _taker(self, start: int, stop: int) -> Callable[[Tensor], None]:
        part = self._gradient[start:stop]

        def take(parameter: Tensor) -> None:
            assert parameter.grad is not None
            given = parameter.grad.reshape(-1)
            if self._sums is None:
                part.copy_(given)
            else:
                self.projection.take(given.numpy(), start, self._sums)
            parameter.grad = None

        return take

    def _place(self) -> None:
        self.projection.apply(self.z.numpy(), self.theta0.numpy(), self.flat.theta.numpy())

    def step(self, lr: float) -> None:
        """One step of Adam on z from the gradient that `backward` left."""
        self.z.grad = torch.from_numpy(self._adjoint())
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()
        self._place()

    def _adjoint(self) -> NDArray[np.float32]:
        """P^T g of the gradient that was taken."""
        if self._sums is None:
            return self.projection.adjoint(self._gradient.numpy())
        taken = self.projection.finish(self._sums)
        self._sums.fill(0)
        return taken

    def point(self) -> NDArray[np.float32]:
        return self.z.numpy().copy()

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


class Direct:
    """Adam on all parameters: the baseline."""

    def __init__(self, flat: FlatParameters) -> None:
        self._adam = torch.optim.Adam(flat.parameters, fused=True)

    def step(self, lr: float) -> None:
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def point(self) -> None:
        return None

    def close(self) -> None:
        pass


def batches(examples: int, batch: int, steps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each step's examples: epochs in random orders, a last short batch dropped."""
    each, epoch = max(examples // batch, 1), -1
    order = np.zeros(0, np.int64)
    for step in range(steps):
        if step // each != epoch:
            epoch = step // each
            order = permutation(seed, _ORDER_STREAM + epoch, examples)
        first = step % each * batch
        yield order[first : first + batch]


def descend(
    task: Task, flat: FlatParameters, mover: Subspace | Direct, job: Job, batch: int, steps: int
) -> Outcome:
    """Train for round(steps * job.share) steps with a rate that falls as a cosine to zero, and score the end.

    Ends early where `hopeless` says so; the scores are then those of that moment.
    """
    began = time.process_time()
    total = max(round(steps * job.share), 1)
    floor = task.score(flat, "validation")
    floor_test = task.score(flat, "test") if task.spans_from_floor and job.dim is None else None
    checks = {math.ceil(total * share) for share in CHECKS}
    curve, done, stopped = [], 0, False
    for rows in batches(task.examples, batch, total, job.seed):
        task.loss(flat, rows).backward()
        mover.step(job.lr * 0.5 * (1 + math.cos(math.pi * done / total)))
        done += 1
        if done in checks and done < total:
            curve.append((done / total, task.score(flat, "validation")))
            if hopeless(curve, floor, job.target):
                stopped = True
                break
    validation = curve[-1][1] if stopped else task.score(flat, "validation")
    curve += [] if stopped else [(1.0, validation)]
    score, loss = task.score(flat, "test"), task.held_loss(flat)
    mover.close()
    seconds = time.process_time() - began
    return Outcome(score, validation, floor, curve, done, seconds, stopped, floor_test, mover.point(), loss)


def hopeless(curve: list[tuple[float, float]], floor: float, target: float | None) -> bool:
    """Whether the run cannot reach the target even at OPTIMISM times its last rate of gain, with SLACK on top."""
    last = curve[-1][1]
    if not math.isfinite(last):
        return True
    if target is None or len(curve) < 2:
        return False
    (before, earlier), (now, _) = curve[-2:]
    rate = max(last - earlier, 0.0) / (now - before)
    return last + OPTIMISM * rate * (1 - now) + SLACK * max(target - floor, 0.0) < target
