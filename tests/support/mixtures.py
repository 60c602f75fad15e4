"""Small sources of three classes, and tables of runs."""

from __future__ import annotations

import numpy as np

CENTRES = np.array([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]])


def rows(counts, seed, flipped=0.0):
    """Gaussian classes, some of their labels redrawn."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3), counts)
    x = CENTRES[y] + rng.standard_normal((len(y), 3))
    wrong = rng.random(len(y)) < flipped
    y[wrong] = rng.integers(0, 3, int(wrong.sum()))
    return {"x": x.astype(np.float32), "y": y}


def lines(mixtures=((1, 0), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0, 1)), sizes=(100, 200, 400), **more):
    """Runs of two sources whose best mixture is 0.4 to 0.6."""
    return [
        {"weights": {"web": p, "code": q}, "n": n, "kind": "error", **more,
         "metric": 0.1 + 0.3 * (p - 0.4) ** 2 + 1 / n**0.5}
        for p, q in mixtures for n in sizes
    ]  # fmt: skip
