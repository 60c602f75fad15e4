"""Mixtures worth looking at: all of a fine grid of the simplex, or many of it, within caps and a budget."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input

Floats = NDArray[np.floating[Any]]

_STEPS = {2: 100, 3: 40, 4: 16}  # of a grid's edge; 101, 861 and 969 mixtures
_MANY = 1000


class Limits(NamedTuple):
    """Caps [sources] of the weights, and prices [sources] a row with what may be spent."""

    upper: Floats
    price: Floats
    budget: float | None = None

    @classmethod
    def none(cls, sources: int) -> Limits:
        return cls(np.ones(sources), np.ones(sources))

    def cheapest(self) -> Floats:
        """The mixture of least price a row within the caps."""
        p, left = np.zeros(len(self.upper)), 1.0
        for i in np.argsort(self.price, kind="stable"):
            p[i] = min(self.upper[i], left)
            left -= p[i]
        return p

    def check(self, n: float | None) -> None:
        """Refuse caps that add up to less than 1, and budgets that buy nothing. Raises BnError (exit 3)."""
        if self.upper.sum() < 1 - 1e-9:
            raise bad_input(
                f"the caps of --max add up to {self.upper.sum():g}, under 1", "a mixture adds up to 1: raise a cap"
            )
        least = float(self.cheapest() @ self.price)
        if n is not None and self.budget is not None and n * least > self.budget * (1 + 1e-9):
            raise bad_input(
                f"{n:g} rows cost {n * least:g} at least, over the budget of {self.budget:g}",
                f"--budget {n * least:g}, or a smaller --at",
            )

    def applied(self, p: Floats, n: float | None) -> Floats:
        """Mixtures [k, sources] brought within the caps, and with a size n within the budget; no row is lost."""
        p = self._capped(p)
        if self.budget is None or n is None:
            return p
        cheap = self.cheapest()
        cost, least, limit = p @ self.price, float(cheap @ self.price), self.budget / n
        t = np.clip((cost - limit) / np.maximum(cost - least, 1e-300), 0, 1)
        t = np.where(cost > limit, t, 0.0)[:, None]
        return p + t * (cheap - p)

    def sizes(self, p: Floats, n: float | None) -> Floats:
        """The size [k] each mixture is trained at: n, or without one all that the budget buys."""
        if n is not None:
            return np.full(len(p), float(n))
        assert self.budget is not None
        return self.budget / (p @ self.price)

    def _capped(self, p: Floats) -> Floats:
        """What is over a cap goes to the others in proportion, or where those have nothing, to their room."""
        p = p.copy()
        for _ in range(len(self.upper)):
            over = np.maximum(p - self.upper, 0)
            if over.max(initial=0.0) <= 1e-15:
                break
            p = np.minimum(p, self.upper)
            room = self.upper - p
            share = np.where(room > 1e-15, p, 0.0)
            empty = share.sum(1) <= 1e-12
            share[empty] = room[empty]
            p += over.sum(1, keepdims=True) * share / share.sum(1, keepdims=True)
        return p / p.sum(1, keepdims=True)


def grid(sources: int, steps: int) -> Floats:
    """All mixtures whose weights are multiples of 1 / steps."""
    bars = itertools.combinations(range(steps + sources - 1), sources - 1)
    cuts = np.array([(-1, *c, steps + sources - 1) for c in bars])
    return (np.diff(cuts, axis=1) - 1) / steps


def landmarks(sources: int) -> Floats:
    """Corners, the centre, and the middles of the edges."""
    corners = np.eye(sources)
    pairs = [(corners[i] + corners[j]) / 2 for i, j in itertools.combinations(range(sources), 2)]
    centre = np.full((1, sources), 1 / sources)
    return np.vstack([corners, centre, *(p[None] for p in pairs)]) if sources > 2 else np.vstack([corners, centre])


def candidates(sources: int, seed: int = 0) -> Floats:
    """A grid of up to 4 sources; of more, landmarks and 1,000 mixtures, even ones and ones with few sources."""
    if sources in _STEPS:
        return grid(sources, _STEPS[sources])
    rng = np.random.default_rng([seed, 31])
    even, sparse = rng.dirichlet(np.ones(sources), _MANY // 2), rng.dirichlet(np.full(sources, 0.3), _MANY // 2)
    return np.vstack([landmarks(sources), even, sparse])


def around(p: Floats, scale: float, count: int, seed: int = 0) -> Floats:
    """Mixtures near p: weights times random factors, some after a move towards a corner; p itself comes first."""
    rng = np.random.default_rng([seed, 32])
    moved = p * np.exp(scale * rng.standard_normal((count, len(p))))
    corner = np.eye(len(p))[rng.integers(len(p), size=count)]
    moved = moved / moved.sum(1, keepdims=True)
    moved[::2] += 0.3 * scale * rng.random((len(moved[::2]), 1)) * (corner[::2] - moved[::2])
    dropped = np.where(p < 0.03, 0.0, p)
    return np.vstack([p, dropped / dropped.sum(), moved])
