"""From scores to a dimension: the number a user quotes and the interval he trusts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.tools.intrinsic_dim import fit


def isotonic(values, weights):
    """The specification: min over later ends of max over earlier starts of weighted means."""
    n = len(values)

    def mean(a, b):
        return np.dot(values[a : b + 1], weights[a : b + 1]) / np.sum(weights[a : b + 1])

    return [max(min(mean(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 5)), min_size=1, max_size=9))
def test_the_monotone_fit_is_the_nearest_one(pairs):
    values, weights = np.array(pairs, float).T
    found = fit.isotonic(values, weights)
    assert np.allclose(found, isotonic(values, weights))
    assert (np.diff(found) >= -1e-12).all()
    rows = fit.isotonic_rows(np.stack([values, -values]), weights)
    assert np.allclose(rows, [isotonic(values, weights), isotonic(-values, weights)])


def test_the_crossing_is_linear_in_the_logarithm():
    dims, scores = np.array([100.0, 400.0]), np.array([0.8, 0.9])
    assert fit.crossing(dims, scores, 0.85) == pytest.approx(200)
    assert fit.crossing(dims, scores, 0.8) == 100
    assert fit.crossing(dims, scores, 0.95) is None


def test_one_lucky_run_at_a_small_dimension_does_not_make_the_dimension_small():
    dims, scores = [100, 100, 200, 200, 400, 400], [0.91, 0.83, 0.80, 0.82, 0.95, 0.95]
    interval, _, curve = fit.dimension(dims, scores, [1.0, 1.0], 0.9, None)
    assert curve.fit[0] == pytest.approx(curve.fit[1])
    assert 200 < interval.value < 400


def truth(dim: float) -> float:
    return 1 - 1.2 / math.sqrt(dim)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random, exact = np.random.default_rng(0), (1.2 / 0.1) ** 2
    dims = [d for d in (100, 122, 144, 173, 202) for _ in range(3)]
    covered, widths, trials = 0, [], 60
    for _ in range(trials):
        scores = [truth(d) + 0.004 * random.normal() for d in dims]
        interval, _, _ = fit.dimension(dims, scores, list(1 + 0.002 * random.normal(size=3)), 0.9, None)
        covered += interval.low <= exact <= interval.high
        widths.append(interval.high / interval.low)
    assert covered >= 50  # of 60 at 95 %: fewer has probability 1e-4; isotonic plateaus cost a little
    assert np.median(widths) < 1.35


def test_without_repeated_runs_the_interval_is_the_bracket():
    interval, target, _ = fit.dimension([100, 200, 400], [0.7, 0.85, 0.95], [1.0], 0.9, None)
    assert target == pytest.approx(0.9)
    assert (interval.low, interval.high) == (200, 400)
    assert 200 < interval.value < 400


def test_what_is_never_reached_has_no_value_but_a_lower_end():
    interval, _, _ = fit.dimension([100, 200], [0.2, 0.3], [1.0], 0.9, None)
    assert interval == (None, 200, None)
    interval, _, _ = fit.dimension([100] * 3 + [200] * 3, [0.2, 0.21, 0.2, 0.3, 0.31, 0.3], [1.0], 0.9, None)
    assert interval.value is None


def test_with_a_floor_the_target_is_a_share_of_the_way():
    assert fit.aim(-1.0, 0.9, -2.0) == pytest.approx(-1.1)
    assert fit.aim(0.97, 0.9, None) == pytest.approx(0.873)


def test_a_smallest_dimension_that_reaches_the_target_is_no_lower_end():
    """Reported as precise, 40 (40 to 40) would be believed."""
    scores = [0.95, 0.96, 0.95, 0.97, 0.98, 0.97]
    interval, _, _ = fit.dimension([40] * 3 + [80] * 3, scores, [1.0], 0.9, None)
    assert interval == (40, None, 40)
    interval, _, _ = fit.dimension([1] * 3 + [2] * 3, scores, [1.0], 0.9, None)
    assert interval == (1, 1, 1)
