"""The synthetic manifolds the weights of the calibrated estimate were fitted to; `--fit` fits them again.

22 kinds, none of them from scikit-dimension's benchmark. Without `--fit` prints the error on fresh draws of them
beside TwoNN's; with it also the error on each kind of weights fitted to the other 21.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.neighbours.exact import nearest
from bntools.tools.data_dim.calibrated import (
    ANGLE_NEIGHBOURS,
    NARROW,
    NEIGHBOURS,
    PULL,
    PUSH,
    WEIGHTS,
    WIDE,
    calibrate,
    readings,
    statistics,
)
from bntools.tools.data_dim.estimators import squared_cosines, twonn

Floats = NDArray[np.float64]
Random = np.random.Generator


def _sines(rng: Random, n: int, d: int, width: int, bend: float) -> Floats:
    """Sines of random combinations of d uniform numbers: smooth and curved."""
    mix = rng.standard_normal((d, width)) * bend / np.sqrt(d)
    return np.sin(2 * rng.random((n, d)) @ mix + rng.uniform(0, 6.3, width))


def _network(rng: Random, n: int, d: int, gain: float) -> Floats:
    """A random network of two layers of tanh on d normal numbers."""
    hidden = 5 * d + 5
    inner = np.tanh(rng.standard_normal((n, d)) @ rng.standard_normal((d, hidden)) * gain / np.sqrt(d))
    return np.tanh(inner @ rng.standard_normal((hidden, 3 * d + 4)) * gain / np.sqrt(hidden))


def _torus(rng: Random, n: int, d: int) -> Floats:
    angles, radii = 2 * np.pi * rng.random((n, d)), rng.uniform(0.5, 1.5, d)
    return np.hstack([radii * np.cos(angles), radii * np.sin(angles)])


def _curve(rng: Random, n: int) -> Floats:
    """A closed curve in 6 dimensions with up to 11 harmonics."""
    orders = np.arange(1, rng.integers(4, 13))
    angles = np.outer(2 * np.pi * rng.random(n), orders)
    cosines, sines = rng.standard_normal((2, len(orders), 6)) / orders[:, None]
    return np.cos(angles) @ cosines + np.sin(angles) @ sines


def _surface(rng: Random, n: int) -> Floats:
    flat = rng.random((n, 2)) * rng.uniform(3, 12, 2)
    return np.c_[flat, np.sin(flat @ rng.standard_normal((2, 3)))]


def _coil(rng: Random, n: int, d: int) -> Floats:
    """A rolled-up line times a box."""
    t = rng.uniform(2, 4) * np.pi * (1 + rng.random(n))
    return np.c_[t * np.cos(t), t * np.sin(t), rng.random((n, d - 1)) * rng.uniform(5, 25, d - 1)]


def _graph(rng: Random, n: int, d: int) -> Floats:
    x = rng.standard_normal((n, d))
    return np.hstack([x, (x @ rng.standard_normal((d, d)) * rng.uniform(0.3, 1.2) / np.sqrt(d)) ** 2])


def _sphere(rng: Random, n: int, d: int) -> Floats:
    points = rng.standard_normal((n, d + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _ball(rng: Random, n: int, d: int) -> Floats:
    return _sphere(rng, n, d - 1) * rng.random((n, 1)) ** (1 / d)


def _mixture(rng: Random, n: int, d: int) -> Floats:
    centres = rng.uniform(1, 4) * rng.standard_normal((6, d))
    return rng.standard_normal((n, d)) + centres[rng.integers(0, 6, n)]


ROUND = (1, 2, 3, 4, 6, 9, 13, 19, 27, 40)
KINDS = {
    "cube": ((1, 2, 3, 4, 6, 9, 12, 16, 22, 30, 45, 60), lambda g, n, d: g.random((n, d))),
    "box": ((3, 5, 8, 13, 20), lambda g, n, d: g.random((n, d)) * g.uniform(0.2, 1, d)),
    "torus": ((1, 2, 3, 4, 6, 8, 11, 15), _torus),
    "sines": ((1, 2, 3, 4, 6, 8, 11, 15, 20), lambda g, n, d: _sines(g, n, d, 3 * d + 2, 2)),
    "bent sines": ((1, 2, 3, 4, 6, 8, 11), lambda g, n, d: _sines(g, n, d, 4 * d + 3, 4)),
    "network": ((1, 2, 3, 5, 8, 12, 18, 25), lambda g, n, d: _network(g, n, d, 1)),
    "steep network": ((1, 2, 3, 5, 8, 12), lambda g, n, d: _network(g, n, d, 2)),
    "beta": ((1, 2, 3, 5, 7, 10, 14), lambda g, n, d: g.beta(*g.uniform(0.7, 6, 2), (n, d))),
    "exponential": ((1, 2, 4, 6, 9, 13), lambda g, n, d: g.exponential(1, (n, d))),
    "chi square": ((1, 2, 3, 5, 7, 9), lambda g, n, d: g.standard_normal((n, d)) ** 2),
    "anisotropic": (
        (3, 5, 8, 12, 18, 25),
        lambda g, n, d: g.standard_normal((n, d)) * np.arange(1, d + 1) ** -g.uniform(0.2, 0.7),
    ),
    "graph": ((1, 2, 3, 4, 6, 9, 12), _graph),
    "coil": ((2, 3, 4, 6), _coil),
    "curve": ((1, 1, 1, 1), lambda g, n, d: _curve(g, n)),
    "surface": ((2, 2, 2, 2), lambda g, n, d: _surface(g, n)),
    "t": ((2, 4, 7, 11, 16), lambda g, n, d: g.standard_t(4, (n, d))),
    "mixture": ((2, 3, 5, 8, 12, 17), _mixture),
    "simplex": ((2, 3, 5, 8, 12, 17), lambda g, n, d: g.dirichlet(np.ones(d + 1), n)),
    "ellipsoid": (
        (2, 3, 5, 8, 12, 17),
        lambda g, n, d: _sphere(g, n, d) * g.uniform(0.4, 1.2, d + 1),
    ),
    "sphere": (ROUND, _sphere),
    "ball": (ROUND, _ball),
    "gaussian": (ROUND, lambda g, n, d: g.standard_normal((n, d))),
}


def manifolds(count: int, seed: int) -> Iterator[tuple[str, int, Floats]]:
    """Name, dimension and points of every kind and dimension."""
    rng = np.random.default_rng(seed)
    for name, (dimensions, draw) in KINDS.items():
        for d in dimensions:
            yield name, d, draw(rng, count, d)


def fit(change: Floats, rest: Floats) -> Floats:
    """Weights [k] so that change [N, k] times them is rest [N], by least absolute relative error.

    Reweighted least squares, ridge 1e-4 of N.
    """
    weights, result = np.ones(len(rest)), np.zeros(change.shape[1])
    for _ in range(30):
        normal = change.T @ (weights[:, None] * change) + 1e-4 * len(rest) * np.eye(len(result))
        result = np.linalg.solve(normal, change.T @ (weights * rest))
        weights = 1 / np.maximum(np.abs(np.expm1(change @ result - rest)), 0.03)
        weights /= weights.mean()
    return result


def error(logs: Floats) -> float:
    """Mean relative error of estimates whose ln d is so far from the truth."""
    return float(np.abs(np.expm1(logs)).mean())


class Samples:
    """All synthetic manifolds of some sizes: kind, ln d, TwoNN's and the tool's ln d, and what it computes with."""

    def __init__(self, counts: tuple[int, ...], seed: int) -> None:
        kinds, truth, plain, ours, ratios, angles = [], [], [], [], [], []
        for count in counts:
            for name, d, points in manifolds(count, seed=count + seed):
                near = nearest(points, np.arange(count), NEIGHBOURS, 1)
                cosines = squared_cosines(points, near.indices[:, :ANGLE_NEIGHBOURS])
                found = statistics(near.distances, cosines)
                kinds.append(name)
                truth.append(np.log(d))
                plain.append(np.log(twonn(near.distances)))
                ours.append(np.log(calibrate(found, count).value))
                ratios.append(np.mean(list(readings(found.ratios, count).values()), axis=0))
                angles.append(found.angle)
        self.kinds, self.truth, self.plain, self.ours = map(np.array, (kinds, truth, plain, ours))
        self.ratios, self.angles = np.array(ratios), np.array(angles)
        self.middle = self.ratios @ np.array(list(WEIGHTS.values()))

    def left_out(self, change: Floats, start: Floats) -> float:
        """Error on each kind of what is fitted to all other kinds: `start` + change times weights."""
        off = np.empty(len(self.truth))
        for kind in np.unique(self.kinds):
            out = self.kinds == kind
            off[out] = start[out] + change[out] @ fit(change[~out], (self.truth - start)[~out])
        return error(off - self.truth)


def fitted(data: Samples) -> None:
    """Fit the weights of the ratios, then of the two terms of the correction, and print both."""
    base = data.ratios[:, 0]
    change = data.ratios[:, 1:] - base[:, None]
    weights = fit(change, data.truth - base)
    weights = np.r_[1 - weights.sum(), weights]
    print("ratios fitted", dict(zip(WEIGHTS, weights.round(2).tolist(), strict=True)), "used", WEIGHTS)
    gap = data.angles - data.middle
    terms = np.stack([np.tanh(gap / NARROW), -np.tanh(gap / WIDE)], 1)
    pair = fit(terms, data.truth - data.middle)
    print("angles fitted", pair.round(3).tolist(), "used", [PULL, PUSH])
    print(f"each kind left out of the fit: ratios {data.left_out(change, base):.4f}, "
          f"and angles {data.left_out(terms, data.middle):.4f}")  # fmt: skip


def main() -> None:
    seed = 0 if "--fit" in sys.argv else 7
    for counts in ((500,), (1000,), (2500,)):
        data = Samples(counts, seed)
        print(f"{len(data.truth)} synthetic manifolds of {counts[0]} points, mean relative error:")
        print(f"  twonn {error(data.plain - data.truth):.4f}  ratios {error(data.middle - data.truth):.4f}  "
              f"calibrated {error(data.ours - data.truth):.4f}", flush=True)  # fmt: skip
    if "--fit" in sys.argv:
        fitted(Samples((500, 1000, 2500), seed))


if __name__ == "__main__":
    main()
