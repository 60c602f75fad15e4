"""Scaling runs in a second: planes fitted to a smooth function on data of known dimension.

usage: interpolation_runs.py DIMENSION [POINTS] > runs.jsonl

A learner that fits planes to the nearest of its D training points errs by the square of their spacing, D^(-1 / d), so
its squared error should fall as D^(-4 / d): the resolution-limited regime of 'Explaining Neural Scaling Laws' (arXiv
2102.06701).
Each line is one training set, of 300 to POINTS points, and the loss of the learner that has it.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def target(x: np.ndarray) -> np.ndarray:
    """A smooth function of the coordinates on the plane."""
    return np.sin(3 * x).sum(1) + np.cos(2 * x.sum(1))


def neighbours(points: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """Indices of the nearest points of each query, [queries, count]."""
    squares = (queries**2).sum(1)[:, None] + (points**2).sum(1) - 2 * queries @ points.T
    return np.argpartition(squares, count, axis=1)[:, :count]


def plane_error(points: np.ndarray, queries: np.ndarray) -> float:
    """Mean squared error of the plane through the nearest points of each query, fitted by least squares."""
    dimension = points.shape[1]
    near = points[neighbours(points, queries, 2 * dimension + 2)]
    offsets = near - queries[:, None]
    design = np.concatenate([np.ones((*offsets.shape[:2], 1)), offsets], 2)
    values = target(near.reshape(-1, dimension)).reshape(len(queries), -1, 1)
    planes = np.linalg.pinv(design) @ values
    return float(np.mean((planes[:, 0, 0] - target(queries)) ** 2))


def main() -> None:
    dimension = int(sys.argv[1])
    largest = int(sys.argv[2]) if len(sys.argv) > 2 else 20000
    random = np.random.default_rng(0)
    for size in np.geomspace(300, largest, 12).astype(int):
        for _ in range(3):
            points = random.uniform(0, 1, (size, dimension))
            queries = random.uniform(
                0.2, 0.8, (400, dimension)
            )  # away from the edge, where planes extrapolate
            print(json.dumps({"D": int(size), "loss": plane_error(points, queries)}))


if __name__ == "__main__":
    main()
