"""The Fréchet distance against closed forms, and its floor."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from bntools.kernels.features.frechet import floor, frechet


def slow_frechet(a, b):
    """The definition: moments, and the root of the product of the covariances."""
    gap = a.mean(0) - b.mean(0)
    first, second = np.cov(a.T), np.cov(b.T)
    return gap @ gap + np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)


def features(seed, rows, width=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


def test_the_distance_is_that_of_the_definition():
    a, b = features(0, 200), features(1, 150)
    assert frechet(a, b) == pytest.approx(slow_frechet(a, b), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)


def test_moving_one_of_two_equal_sets_adds_the_square_of_the_way():
    a = features(2, 100)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + 2.0) == pytest.approx(4.0 * a.shape[1], rel=1e-9)


def test_gaussians_of_one_axis_differ_by_the_square_of_their_deviations():
    a = np.array([[-1.0], [1.0]])
    assert frechet(a, 3 * a) == pytest.approx((3 - 1) ** 2 * 2, rel=1e-12)  # variances 2 and 18 with N - 1


@pytest.mark.parametrize("rows", [2, 6, 7, 8])
def test_few_rows_give_what_their_covariances_say(rows):
    """Two sets in disjoint planes: the roots of their covariances have no common part, whatever the rank."""
    rng = np.random.default_rng(rows)
    a, b = np.zeros((rows, 12)), np.zeros((rows, 12))
    a[:, :6], b[:, 6:] = rng.normal(size=(rows, 6)), rng.normal(size=(rows, 6))
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    assert frechet(a, b) == pytest.approx(gap + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum(), rel=1e-9)


def test_the_floor_falls_with_the_rows_and_is_what_a_perfect_sampler_gets():
    real = np.random.default_rng(3).normal(size=(4000, 8))
    few, many = floor(real, 100, draws=20), floor(real, 1000, draws=20)
    assert many.mean < few.mean / 5  # the expectation goes with 1 / rows
    fresh = np.random.default_rng(4).normal(size=(1000, 8))
    assert abs(frechet(fresh, real[:1000]) - many.mean) < 5 * many.se * 20**0.5  # one draw, not a mean of 20


def test_a_floor_of_more_rows_than_there_are_says_how_many_it_took():
    assert floor(features(5, 31), 1000).rows == 15


def test_what_is_no_set_of_features_is_refused():
    with pytest.raises(ValueError, match="no set"):
        frechet(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="3 and 4 features"):
        frechet(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="no two halves"):
        floor(np.zeros((3, 2)), 5)
