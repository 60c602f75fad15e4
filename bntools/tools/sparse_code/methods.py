"""The six ways to choose codes: which latents a row uses in training, and how the loss pulls at their scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.sparse import selection
from bntools.kernels.sparse.selection import Floats, Ints, Support
from bntools.kernels.sparse.training import Adam, Residual, SparseWeights

PREFIXES = (16, 8, 4, 2, 1)
"""A matryoshka's prefixes: m over each of these."""
STEP = 0.02
"""Change of the logarithm of a penalty a step, times L0 / k - 1 (at most 1 either way)."""
RECTANGLE = 0.03
"""Width of the rectangle that stands for the derivative of a step (Rajamanoharan et al. 2024, jumprelu)."""
L0_WEIGHT = 4.0
"""Weight of (L0 / k - 1)^2 for jumprelu: the L0 settles about 2 % over k, where the gain in FVU equals the penalty."""
THRESHOLD_RATE = 5.0
"""Learning rate of jumprelu's thresholds, in learning rates: they start near 2 and have to follow the scores."""


class TopK:
    """The k largest positive scores of each row."""

    l0_controlled = False
    extra_residual = False

    def __init__(self, weights: SparseWeights, k: int, first: Floats) -> None:
        self.weights, self.k, self.m = weights, k, len(weights.D)
        self.ends: Ints = np.array([self.m], np.int32)
        self.start(first)

    def start(self, first: Floats) -> None:
        """Set what depends on the first batch."""

    def select(self, seen: Floats) -> Support:
        return selection.full(*selection.top(self.weights.encoder(), seen, self.k, self.weights.threads))

    def slopes(self, X: Floats, support: Support, residual: Residual) -> Floats:
        """The gradient by each pair's score; X: the rows to be explained."""
        return np.where(support.values > 0, residual.pulls, np.float32(0))

    def adjust(self, support: Support, rows: int, rate: float) -> None:
        """What is learned besides the weights; after the step."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays beside the weights that a run goes on from; changed in place by `restore`."""
        return {}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        for name, array in self.state().items():
            array[...] = arrays[name]

    def threshold(self) -> Floats | None:
        """theta [m] of inference where training knows it."""
        return None

    def _cut(self, seen: Floats) -> float:
        """The score that k latents a row exceed in a batch."""
        chosen = selection.top_of_batch(
            self.weights.encoder(), seen, self.k * len(seen), self.weights.threads
        )
        return float(chosen.values.min(initial=np.inf)) if len(chosen.values) else 0.0


class BatchTopK(TopK):
    """The k B largest positive scores of a batch of B rows (Bussmann et al. 2024)."""

    def select(self, seen: Floats) -> Support:
        total = min(self.k * len(seen), self.m * len(seen))
        return selection.top_of_batch(self.weights.encoder(), seen, total, self.weights.threads)


class Matryoshka(BatchTopK):
    """batchtopk whose every prefix of latents is a dictionary, too (Bussmann et al. 2025)."""

    def start(self, first: Floats) -> None:
        self.ends = np.unique([max(self.m // part, 1) for part in PREFIXES]).astype(np.int32)


class Penalised(TopK):
    """Positive scores, under a penalty whose weight follows L0: lambda[0], in units of 1 / (B d)."""

    l0_controlled = True

    def start(self, first: Floats) -> None:
        self.penalty = np.ones(1)
        self.weights.be.value[:] = -self._cut(first)

    def select(self, seen: Floats) -> Support:
        zero = np.zeros(self.m, np.float32)
        return selection.beyond(self.weights.encoder(), seen, zero, self.weights.threads)

    def slopes(self, X: Floats, support: Support, residual: Residual) -> Floats:
        return residual.pulls + np.float32(self.penalty[0] / X.size)

    def adjust(self, support: Support, rows: int, rate: float) -> None:
        l0 = np.count_nonzero(support.values > 0) / rows
        self.penalty[0] *= np.exp(STEP * np.clip(l0 / self.k - 1, -1, 1))

    def state(self) -> dict[str, NDArray[Any]]:
        return {"penalty": self.penalty}


class JumpReLU(TopK):
    """Scores over a learned threshold of each latent, L0 itself penalised through a rectangle of width 0.03."""

    l0_controlled = True

    def start(self, first: Floats) -> None:
        self.theta = Adam(np.full(self.m, self._cut(first), np.float32))
        self.by_theta = np.zeros(self.m, np.float32)

    def select(self, seen: Floats) -> Support:
        """Pairs over the lower edge of the rectangle; those under theta have value 0 but move it."""
        low = np.maximum(self.theta.value - np.float32(RECTANGLE / 2), 0)
        chosen = selection.beyond(self.weights.encoder(), seen, low, self.weights.threads)
        self.scores = chosen.values
        return Support(
            chosen.indptr, chosen.latents, np.where(self._over(chosen), chosen.values, np.float32(0))
        )

    def _over(self, support: Support) -> NDArray[np.bool_]:
        return self.scores > self.theta.value[support.latents]

    def slopes(self, X: Floats, support: Support, residual: Residual) -> Floats:
        """theta's gradient: -(1 / width) times what switching the latent on changes, for scores within width / 2."""
        over, theta = self._over(support), self.theta.value[support.latents]
        near = np.abs(self.scores - theta) < RECTANGLE / 2
        excess = np.count_nonzero(over) / len(X) / self.k - 1
        cost = theta * residual.pulls + np.float32(2 * L0_WEIGHT * excess / (self.k * len(X)))
        change = np.where(near, -cost / np.float32(RECTANGLE), 0)
        self.by_theta = np.bincount(support.latents, change, self.m).astype(np.float32)
        return np.where(over, residual.pulls, np.float32(0))

    def adjust(self, support: Support, rows: int, rate: float) -> None:
        self.theta.step(self.by_theta, THRESHOLD_RATE * rate, self.weights.steps)
        np.maximum(self.theta.value, 0, out=self.theta.value)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"theta": self.theta.value, "theta.first": self.theta.first, "theta.second": self.theta.second}

    def threshold(self) -> Floats:
        return self.theta.value


class Gated(Penalised):
    """A gate [q + b_m > 0] and a size relu(e^r q + be) that share directions (Rajamanoharan et al. 2024).

    The penalty and a second reconstruction, with the decoder held fixed, act on the gate alone.
    """

    def start(self, first: Floats) -> None:
        self.penalty = np.ones(1)
        self.bm = Adam(np.full(self.m, -self._cut(first), np.float32))
        self.r = Adam(np.zeros(self.m, np.float32))

    def select(self, seen: Floats) -> Support:
        encoder = self.weights.encoder(self.bm.value)
        zero = np.zeros(self.m, np.float32)
        chosen = selection.beyond(encoder, seen, zero, self.weights.threads)
        j = chosen.latents
        self.gate, self.q = chosen.values, chosen.values - self.bm.value[j]
        values = np.maximum(np.exp(self.r.value[j]) * self.q + self.weights.be.value[j], 0)
        return Support(chosen.indptr, j, values.astype(np.float32))

    def slopes(self, X: Floats, support: Support, residual: Residual) -> Floats:
        j, total = support.latents, float(np.einsum("nd,nd->", X, X)) or 1.0
        own = np.where(support.values > 0, residual.pulls, np.float32(0))
        gate = self.weights.residual(X, Support(support.indptr, j, self.gate), self.ends, 1 / total)
        by_gate = gate.pulls + np.float32(self.penalty[0] / X.size)
        size = np.exp(self.r.value[j])
        self.by_bm, self.by_r, self.by_be = (
            np.bincount(j, values, self.m).astype(np.float32)
            for values in (by_gate, own * size * self.q, own)
        )
        return (own * size + by_gate).astype(np.float32)

    def adjust(self, support: Support, rows: int, rate: float) -> None:
        steps = self.weights.steps
        for adam, gradient in ((self.bm, self.by_bm), (self.r, self.by_r), (self.weights.be, self.by_be)):
            adam.step(gradient, rate, steps)
        l0 = np.count_nonzero(support.values > 0) / rows
        self.penalty[0] *= np.exp(STEP * np.clip(l0 / self.k - 1, -1, 1))

    def state(self) -> dict[str, NDArray[Any]]:
        adams = {"gate": self.bm, "size": self.r}
        parts = {f"{n}.{p}": getattr(a, p) for n, a in adams.items() for p in ("value", "first", "second")}
        return {"penalty": self.penalty, **parts}


METHODS: dict[str, type[TopK]] = {
    "topk": TopK, "batchtopk": BatchTopK, "matryoshka": Matryoshka, "relu": Penalised, "jumprelu": JumpReLU,
    "gated": Gated,
}  # fmt: skip
