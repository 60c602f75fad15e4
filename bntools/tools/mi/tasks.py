"""The 40 pairs of known mutual information of Czyz et al. (2023), drawn anew: a base, and maps that keep its value.

The list, dimensions and maps are those of 'Beyond Normal' (arXiv 2306.11078); the numbers are drawn by numpy, so a
seed gives other points than their code does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from bntools.core.information.copula import student_excess

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]


class Task(NamedTuple):
    """draw(n, rng) gives x [n, dx] and y [n, dy]; truth: their mutual information in nats."""

    name: str
    truth: float
    draw: Callable[[int, np.random.Generator], Pair]


def gaussian(name: str, covariance: Floats, width: int) -> Task:
    """x is the first `width` coordinates of a normal vector, y the others."""
    factor = np.linalg.cholesky(covariance)

    def draw(count: int, rng: np.random.Generator) -> Pair:
        z = rng.standard_normal((count, len(factor))) @ factor.T
        return z[:, :width], z[:, width:]

    return Task(name, gaussian_information(covariance, width), draw)


def gaussian_information(covariance: Floats, width: int) -> float:
    """(ln det A + ln det B - ln det C) / 2 of a covariance C with diagonal blocks A and B."""
    parts = (covariance[:width, :width], covariance[width:, width:], covariance)
    a, b, joint = (np.linalg.slogdet(part)[1] for part in parts)
    return float(a + b - joint) / 2


def dense(width: int) -> Floats:
    """Every two coordinates correlate by 1/2."""
    return np.full((2 * width, 2 * width), 0.5) + 0.5 * np.eye(2 * width)


def two_pairs(width: int) -> Floats:
    """x_1, y_1 and x_2, y_2 correlate by 0.8, nothing else."""
    covariance = np.eye(2 * width)
    for i in range(2):
        covariance[i, width + i] = covariance[width + i, i] = 0.8
    return covariance


def student(width: int, freedom: int) -> Task:
    """Multivariate t of `freedom` degrees of freedom and identity dispersion: dependent without correlation."""

    def draw(count: int, rng: np.random.Generator) -> Pair:
        z = rng.standard_normal((count, 2 * width))
        z *= np.sqrt(freedom / rng.chisquare(freedom, (count, 1)))
        return z[:, :width], z[:, width:]

    return Task(f"student {width}x{width}, {freedom} df", student_excess(freedom, width, width), draw)


def additive(noise: float) -> Task:
    """x uniform on [0, 1], y = x + uniform on [-noise, noise]."""

    def draw(count: int, rng: np.random.Generator) -> Pair:
        x = rng.random((count, 1))
        return x, x + rng.uniform(-noise, noise, (count, 1))

    truth = math.log(1 / (2 * noise)) + noise if noise <= 0.5 else 1 / (4 * noise)
    return Task(f"uniform, noise {noise}", truth, draw)


def mapped(name: str, base: Task, x: Callable[[Floats], Floats], y: Callable[[Floats], Floats]) -> Task:
    """The same information through an injective map of each side."""

    def draw(count: int, rng: np.random.Generator) -> Pair:
        before = base.draw(count, rng)
        return x(before[0]), y(before[1])

    return Task(f"{name} of {base.name}", base.truth, draw)


def half_cube(x: Floats) -> Floats:
    return x * np.sqrt(np.abs(x))


def wiggly_x(x: Floats) -> Floats:
    return x + 0.4 * np.sin(x) + 0.2 * np.sin(1.7 * x + 1) + 0.03 * np.sin(3.3 * x - 2.5)


def wiggly_y(y: Floats) -> Floats:
    return y - 0.4 * np.sin(0.4 * y) + 0.17 * np.sin(1.3 * y + 3.5) + 0.02 * np.sin(4.3 * y - 2.5)


def spiral(plane: int) -> Callable[[Floats], Floats]:
    """Turns the plane of coordinates (plane, plane + 1) by the squared length of the vector over its dimension."""

    def turn(x: Floats) -> Floats:
        angle = np.square(x).sum(1) / x.shape[1]
        out = x.copy()
        first, second = x[:, plane], x[:, plane + 1]
        out[:, plane] = np.cos(angle) * first + np.sin(angle) * second
        out[:, plane + 1] = np.cos(angle) * second - np.sin(angle) * first
        return out

    return turn


def swiss_roll(x: Floats) -> Floats:
    """A number of [0, 1] as a point of a rolled-up curve in the plane."""
    t = 1.5 * np.pi * (1 + 2 * x[:, 0])
    return np.stack([t * np.cos(t), t * np.sin(t)], 1) / 21


def two_humps(shares: tuple[float, float], means: tuple[float, float]) -> Callable[[Floats], Floats]:
    """From a standard normal number to one of a mixture of two unit normals, by the inverse of its distribution."""
    grid = np.linspace(min(means) - 9, max(means) + 9, 20_001)
    levels = sum(share * ndtr(grid - mean) for share, mean in zip(shares, means, strict=True))
    rising = np.concatenate([[True], np.diff(levels) > 0])
    return lambda x: np.interp(ndtr(x), np.asarray(levels)[rising], grid[rising])


def tasks() -> list[Task]:
    """All 40, in the order of the paper's list: one dimension, an embedding, normal, t, mapped."""
    normal = gaussian("normal", np.array([[1, 0.75], [0.75, 1]]), 1)
    wide = {d: gaussian(f"two pairs {d}x{d}", two_pairs(d), d) for d in (2, 3, 5, 25)}
    humps = two_humps((0.3, 0.7), (0, 5)), two_humps((0.5, 0.5), (-1, 3))
    uniform = mapped("cdf", normal, ndtr, ndtr)
    chosen = [
        normal, uniform, additive(0.1), additive(0.75), mapped("two humps", normal, *humps),
        mapped("wiggly", normal, wiggly_x, wiggly_y), mapped("half cube", normal, half_cube, half_cube),
        student(1, 1), mapped("asinh", student(1, 1), np.arcsinh, np.arcsinh),
        mapped("swiss roll", uniform, swiss_roll, lambda y: y),
    ]  # fmt: skip
    chosen += [gaussian(f"dense {d}x{d}", dense(d), d) for d in (2, 3, 5, 25, 50)] + list(wide.values())
    chosen += [student(d, df) for d, df in ((2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3))]
    for d in (3, 5, 25):
        chosen.append(mapped("cdf", wide[d], ndtr, ndtr))
        chosen.append(mapped("half cube", wide[d], half_cube, half_cube))
        chosen.append(mapped("spiral", wide[d], spiral(0), spiral(1)))
        chosen.append(mapped("spiral", chosen[-3], spiral(0), spiral(1)))
    return chosen + [
        mapped("asinh", student(d, df), np.arcsinh, np.arcsinh) for d, df in ((2, 1), (3, 2), (5, 2))
    ]
