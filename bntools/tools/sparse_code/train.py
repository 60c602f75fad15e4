"""Training: batches through one or several dictionaries, kept at times, resumed to the same bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.sparse_dictionary import THRESHOLDED, Dictionary
from bntools.core.progress import Progress
from bntools.core.system.bfloat16 import gains
from bntools.kernels.sparse import selection
from bntools.kernels.sparse.selection import Floats
from bntools.kernels.sparse.training import Extra, SparseWeights, revive
from bntools.tools.sparse_code.batches import Batches, Norm
from bntools.tools.sparse_code.methods import METHODS
from bntools.tools.sparse_code.settings import Settings

WARM_UP = 20
DECAY_PART = 5
"""Over the last one in so many steps the learning rate falls to 0."""
DEAD_BATCHES = 40
_SOLVE_ROWS = 65_536


class Point(NamedTuple):
    """One step of the curve: FVU of the batch and its latents a row."""

    step: int
    fvu: float
    l0: float


class Trainer:
    """One dictionary in training."""

    def __init__(self, settings: Settings, m: int, first: Floats, threads: int) -> None:
        half = gains("cpu") and not settings.exact
        rng = np.random.default_rng([settings.seed, 0])
        self.settings, self.m = settings, m
        self.weights = SparseWeights(m, first.shape[1], rng, half, threads)
        self.method = METHODS[settings.method](self.weights, settings.k, first)
        self.idle = np.zeros(m, np.int64)
        self.count = np.zeros(m, np.int64)
        self.curve: list[Point] = []
        self.dead_after = settings.dead_after or DEAD_BATCHES * settings.batch
        self.uses_aux = settings.aux > 0 and not self.method.l0_controlled

    def step(self, X: Floats, rate: float) -> None:
        """One batch of normalised rows."""
        weights, method = self.weights, self.method
        total = float(np.einsum("nd,nd->", X, X)) or 1.0
        seen = X - weights.bd.value
        support = method.select(seen)
        levels = len(method.ends)
        residual = weights.residual(X, support, method.ends, 1 / (levels * total))
        slopes = method.slopes(X, support, residual)
        extra = self._revive(X, seen, residual.G[-1] * np.float32(-0.5 * levels * total), total)
        own_bias = method.__class__.__name__ != "Gated"
        weights.descend(seen, residual, support, slopes, method.ends, rate=rate, extra=extra, bias=own_bias)
        method.adjust(support, len(X), rate)
        self._notice(X, support, residual.errors[-1], total)

    def _revive(self, X: Floats, seen: Floats, residual: Floats, total: float) -> Extra | None:
        """AuxK's gradients where latents are dead; residual: x - xhat."""
        dead = np.flatnonzero(self.idle > self.dead_after).astype(np.int32)
        if not self.uses_aux or not len(dead):
            return None
        half = max(X.shape[1] // 2, 1)
        left = float(np.einsum("nd,nd->", residual, residual)) or 1.0
        scale = self.settings.aux * min(1.0, len(dead) / half) / left
        return revive(self.weights, seen, residual, dead, min(half, len(dead)), scale)[0]

    def _notice(
        self, X: Floats, support: selection.Support, errors: NDArray[np.float64], total: float
    ) -> None:
        used = np.bincount(support.latents[support.values > 0], minlength=self.m)
        self.idle = np.where(used > 0, 0, self.idle + len(X))
        self.count += used
        l0 = used.sum() / len(X)
        self.curve.append(Point(len(self.curve), float(errors.sum() / total), float(l0)))

    @property
    def dead(self) -> int:
        """Latents not used in the last `dead_after` rows."""
        return int((self.idle > self.dead_after).sum())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that changes in training, as the arrays themselves."""
        w = self.weights
        names = ("D1", "D2", "E1", "E2")
        biases = {f"{n}.{p}": getattr(a, p) for n, a in (("be", w.be), ("bd", w.bd)) for p in
                  ("value", "first", "second")}  # fmt: skip
        moments = dict(zip(names, w.moments, strict=True))
        own = {f"method.{name}": array for name, array in self.method.state().items()}
        return {"D": w.D, "E": w.E, **moments, **biases, "idle": self.idle, "count": self.count, **own}

    def restore(self, arrays: dict[str, NDArray[Any]], steps: int, curve: list[Point]) -> None:
        for name, array in self.arrays().items():
            array[...] = arrays[name]
        self.weights.steps, self.curve = steps, curve
        self.weights.refresh()

    def finish(self, norm: Norm, batches: Batches, facts: dict[str, Any], threads: int) -> Dictionary:
        """The dictionary, its threshold solved where the method needs one."""
        w, method = self.weights, self.method
        gate = np.stack([method.bm.value, method.r.value]) if hasattr(method, "bm") else None
        dictionary = Dictionary(
            w.E,
            w.be.value,
            w.D,
            w.bd.value,
            norm.mean,
            norm.scale,
            facts,
            method.threshold(),
            gate,
            self.count,
        )
        if self.settings.method in THRESHOLDED and dictionary.theta is None:
            dictionary.theta = np.full(self.m, self._solve(batches), np.float32)
        return dictionary

    def _solve(self, batches: Batches) -> float:
        """The threshold that k latents a row exceed on average over 65,536 rows: solved, not a running mean."""
        kept, rows = [], 0
        encoder = self.weights.encoder()
        for _, X in batches():
            seen = X - self.weights.bd.value
            total = min(2 * self.settings.k * len(X), self.m * len(X))
            kept.append(selection.top_of_batch(encoder, seen, total, self.weights.threads).values)
            rows += len(X)
            if rows >= min(_SOLVE_ROWS, batches.norm.rows):
                break
        values, wanted = np.concatenate(kept), self.settings.k * rows
        return float(np.partition(values, -wanted)[-wanted]) if wanted < len(values) else 0.0


def rate_at(step: int, steps: int, rate: float) -> float:
    """Warm-up over 20 steps, constant, linear to 0 over the last fifth."""
    left = (steps - step) / max(steps / DECAY_PART, 1)
    return rate * min((step + 1) / min(WARM_UP, steps), 1.0, left)


def train(
    trainers: list[Trainer], batches: Batches, steps: int, *, keeper: Any, progress: Progress
) -> Iterator[int]:  # fmt: skip
    """Run all trainers over the same batches; yields the steps done after each. keeper: saves and restores them."""
    done, cursor = keeper.restore(trainers)
    rates = [t.settings.learning_rate(t.m) for t in trainers]
    saved = time.monotonic()
    with progress("rows", (steps - done) * batches.batch) as advance:
        for behind, X in batches(cursor):
            if done >= steps:
                break
            for trainer, rate in zip(trainers, rates, strict=True):
                trainer.step(X, rate_at(done, steps, rate))
            done += 1
            advance(len(X))
            yield done
            if keeper.every and time.monotonic() - saved >= keeper.every:
                keeper.save(trainers, done, behind)
                saved = time.monotonic()
