"""Mutual information of many columns: equal to a plain double loop, blind to monotone maps, 0 where nothing is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.dependence.fft_density import class_density_information, joint_information
from bntools.kernels.dependence.levels import levels
from bntools.kernels.dependence.mutual_information import class_information, grid_information
from bntools.kernels.dependence.nearest import digamma_table, knn_class_information, knn_information
from bntools.kernels.dependence.rank_correlation import chatterjee
from bntools.kernels.dependence.rank_weights import WIDTH, bin_weights, group_weights, kernel_weights


def information(joint: np.ndarray) -> float:
    """The definition."""
    joint = joint / joint.sum()
    independent = joint.sum(1)[:, None] * joint.sum(0)[None]
    positive = joint > 0
    return float((joint[positive] * np.log(joint[positive] / independent[positive])).sum())


def dense(weights) -> np.ndarray:
    full = np.zeros((len(weights.first), weights.points))
    for k, (first, row) in enumerate(zip(weights.first, weights.weight, strict=True)):
        full[k, first : first + WIDTH] += row
    return full


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 173))
    return x, x[0] ** 2 + 0.3 * rng.standard_normal(173)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(3, 200), seed=st.integers(0, 99), kind=st.sampled_from(["kernel", "wide", "bins", "values"])
)
def test_the_banded_sums_are_the_products_of_the_whole_weight_matrices(n, seed, kind):
    rng = np.random.default_rng(seed)
    x = {
        "kernel": kernel_weights(n), "wide": kernel_weights(n, 2.0), "bins": bin_weights(n, 3),
        "values": group_weights(np.array([1, n - 1])),
    }[kind]  # fmt: skip
    y, order, ranks = kernel_weights(n), rng.permutation(n), rng.permutation(n)
    slow = information(dense(x).T @ dense(y)[ranks[order]])
    assert grid_information(order[None], ranks, x, y)[0] == pytest.approx(slow, abs=2e-5)
    classes = rng.integers(0, 3, n)
    slow = information(np.eye(3)[classes[order]].T @ dense(x))
    assert class_information(order[None], classes, x)[0] == pytest.approx(slow, abs=2e-5)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 3000))
def test_every_rank_has_weight_one_and_touches_the_grid_only(n):
    weights = kernel_weights(n)
    np.testing.assert_allclose(weights.weight.sum(1), 1, atol=1e-6)
    assert weights.first.min() >= 0
    assert weights.first.max() + WIDTH <= weights.points


def test_a_monotone_map_changes_nothing_and_independence_scores_least(sample):
    x, y = sample
    ranks, weights = np.argsort(np.argsort(y)), kernel_weights(len(y))
    scores = grid_information(np.argsort(x, 1), ranks, weights, weights)
    np.testing.assert_array_equal(grid_information(np.argsort(np.exp(x), 1), ranks, weights, weights), scores)
    assert scores.argmax() == 0
    assert scores[0] > 2 * scores[1:].max()


def test_a_column_that_decides_the_class_has_its_entropy():
    classes = np.repeat([0, 1, 2], [30, 50, 20])
    score = class_information(np.arange(100)[None], classes, group_weights(np.array([30, 50, 20])))[0]
    shares = np.array([0.3, 0.5, 0.2])
    assert score == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-5)


def test_chatterjee_is_its_formula_and_nearly_one_for_a_function():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(400)
    order = np.argsort(x)[None]
    for y in (np.sin(3 * x), rng.integers(0, 2, 400).astype(float)):
        r = np.array([(y <= v).sum() for v in y])[order[0]]
        ell = np.array([(y >= v).sum() for v in y])
        slow = 1 - 400 * np.abs(np.diff(r)).sum() / (2 * (ell * (400 - ell)).sum())
        assert chatterjee(order, y)[0] == pytest.approx(slow, abs=1e-12)
    assert chatterjee(order, np.sin(3 * x))[0] > 0.9


def test_nearest_neighbours_score_as_in_scikit_learn(sample):
    module = pytest.importorskip("sklearn.feature_selection._mutual_info")
    x, y = sample
    classes = np.digitize(y, [0.5, 1.5])
    ours = knn_information(x, y)
    theirs = [module._compute_mi_cc(column, y, 3) for column in x]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    theirs = [module._compute_mi_cd(column, classes, 3) for column in x]
    np.testing.assert_allclose(knn_class_information(x, classes), theirs, atol=1e-12)


def test_the_digamma_table_is_digamma():
    from scipy.special import digamma

    np.testing.assert_allclose(digamma_table(50)[1:], digamma(np.arange(1, 51)), atol=1e-13)


def test_densities_by_fourier_transform_are_sums_of_kernels(sample):
    """On a coarse grid, where the slow double loop is affordable."""
    x, y = sample[0][0], sample[1]
    points = 24
    scaled = [(v - np.median(v)) / np.subtract(*np.percentile(v, [75, 25])) for v in (x, y)]
    reach = np.sqrt(5)
    grids = []
    for v in scaled:
        margin = max(reach, 0.05 * np.ptp(v))
        grids.append(np.linspace(v.min() - margin, v.max() + margin, points))
    joint = np.zeros((points, points))
    for a, b in zip(*scaled, strict=True):  # each sample is shared between the four grid points around it
        steps = [g[1] - g[0] for g in grids]
        i, j = (min(int((v - g[0]) / s), points - 2) for v, g, s in zip((a, b), grids, steps, strict=True))
        u, w = (a - grids[0][i]) / steps[0], (b - grids[1][j]) / steps[1]
        for di, share_a in ((0, 1 - u), (1, u)):
            for dj, share_b in ((0, 1 - w), (1, w)):
                rows, columns = (grids[0] - grids[0][i + di]) / reach, (grids[1] - grids[1][j + dj]) / reach
                joint += share_a * share_b * np.maximum(1 - rows[:, None] ** 2 - columns[None] ** 2, 0)
    assert joint_information(x, y, points=points) == pytest.approx(information(joint), abs=1e-9)
    classes = (y > 0.5).astype(int)
    assert class_density_information(x, classes) > 5 * class_density_information(sample[0][3], classes)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, np.nan, -1.0]), min_size=1, max_size=20))
def test_levels_counts_what_is_there(values):
    x = np.array([values])
    valid, distinct = np.empty(1, np.int64), np.empty(1, np.int64)
    levels(x, np.argsort(x, 1), valid, distinct)
    known = [v for v in values if v == v]
    assert (valid[0], distinct[0]) == (len(known), len(set(known)))
