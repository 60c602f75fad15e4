"""Estimates on what is known in closed form, and fast versions against their references."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bntools.kernels.information.covariance import (
    canonical,
    gaussian_information,
    log_determinant,
    spectral_entropy,
)
from bntools.kernels.information.histogram import codes, discrete_information, entropy
from bntools.kernels.information.kernel_density import mixture_bounds, mixture_bounds_reference
from bntools.kernels.information.kernel_matrices import (
    cauchy_schwarz_information,
    cauchy_schwarz_reference,
    renyi_information,
)
from bntools.kernels.information.nearest_neighbour import (
    entropy_weights,
    kraskov,
    labelled_terms,
    mixed_terms,
    neighbour_entropy,
)
from bntools.kernels.information.neighbour_counts import Side
from bntools.kernels.neighbours.exact import nearest

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("correlation", "truth"), [(0.3, 0.0472), (0.75, 0.4133), (0.9, 0.8304)])
def test_kraskov_finds_the_information_of_normal_pairs(correlation, truth):
    x = RNG.standard_normal((4000, 1))
    y = correlation * x + math.sqrt(1 - correlation**2) * RNG.standard_normal((4000, 1))
    assert kraskov(x, y) == pytest.approx(truth, abs=0.06)


@pytest.mark.parametrize("values", [2, 5, 10])
def test_mixed_and_labelled_terms_find_a_discrete_cause_of_a_number(values):
    x = RNG.integers(0, values, (4000, 1)).astype(float)
    y = x + 2 * RNG.random((4000, 1))
    truth = math.log(values) - (values - 1) * math.log(2) / values
    mixed = mixed_terms(Side.of(x), Side.of(y), 5)[0].mean()
    assert mixed == pytest.approx(truth, abs=0.05)
    assert labelled_terms(y, x[:, 0].astype(int), 5)[0].mean() == pytest.approx(mixed, abs=0.02)


def test_mixed_terms_on_atoms_are_the_plug_in():
    x = RNG.integers(0, 10, (3000, 1)).astype(float)
    y = x + RNG.integers(0, 3, (3000, 1))
    mixed = mixed_terms(Side.of(x), Side.of(y), 5)[0].mean()
    assert mixed == pytest.approx(discrete_information(x[:, 0].astype(int), y[:, 0].astype(int)), abs=0.02)


def test_mixed_terms_bear_rounding_to_a_tenth():
    x = RNG.standard_normal((4000, 1))
    y = x + RNG.standard_normal((4000, 1))
    rounded = mixed_terms(Side.of(x.round(1)), Side.of(y.round(1)), 5)[0].mean()
    assert rounded == pytest.approx(math.log(2) / 2, abs=0.1)


def test_a_class_of_one_row_has_no_term():
    labels = np.array([0] * 60 + [1] * 60 + [2])
    terms, rows = labelled_terms(RNG.standard_normal((121, 2)), labels, 5)
    assert len(terms) == 120
    assert 120 not in rows


def test_neighbour_entropy_of_a_normal():
    x = RNG.standard_normal((3000, 3))
    distances = nearest(x, np.arange(3000), 5).distances
    assert neighbour_entropy(distances, 3, 3000) == pytest.approx(
        1.5 * math.log(2 * math.pi * math.e), abs=0.1
    )


@pytest.mark.parametrize("width", [1, 4, 8])
def test_entropy_weights_sum_to_one_and_cancel_the_orders(width):
    weights = entropy_weights(width, 12)
    assert weights.sum() == pytest.approx(1)
    for order in range(1, width // 4 + 1):
        gammas = [math.exp(math.lgamma(j + 2 * order / width) - math.lgamma(j)) for j in range(1, 13)]
        assert weights @ gammas == pytest.approx(0, abs=1e-6)


def test_log_determinants_of_few_rows_are_unbiased():
    found = [log_determinant(np.cov(RNG.standard_normal((60, 10)).T), 59) for _ in range(400)]
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / 20)


def test_information_of_independent_columns_is_not_inflated_by_their_number():
    found = [gaussian_information(np.cov(RNG.standard_normal((200, 40)).T), 20, 199) for _ in range(60)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(60)


def test_canonical_coordinates_are_white_and_drop_what_does_not_vary():
    x = RNG.standard_normal((500, 3))
    x = np.hstack([x, x[:, :1]])
    first, second, correlations = canonical(x, x[:, :2] + RNG.standard_normal((500, 2)))
    assert first.shape == (500, 3)
    np.testing.assert_allclose(first.T @ first / 500, np.eye(3), atol=1e-9)
    np.testing.assert_allclose((first.T @ second / 500).diagonal(), correlations, atol=1e-9)


def test_mixture_bounds_equal_the_reference_and_count_clusters():
    x = RNG.standard_normal((700, 4))
    np.testing.assert_allclose(mixture_bounds(x, [0.5, 1])[0][0], mixture_bounds_reference(x, 0.5))
    far = np.eye(100) * 1e3
    np.testing.assert_allclose(mixture_bounds(far, [0.1])[0], math.log(100))
    labels = np.repeat(np.arange(5), 100)
    tight = labels[:, None] * 100.0 + 1e-6 * RNG.standard_normal((500, 1))
    whole, within = mixture_bounds(tight, [0.1], labels)
    np.testing.assert_allclose(whole, math.log(5), atol=1e-6)
    np.testing.assert_allclose(within, 0, atol=1e-6)


def test_cauchy_schwarz_equals_the_reference_in_blocks():
    x = RNG.standard_normal((700, 2))
    y = x[:, :1] + RNG.standard_normal((700, 1))
    assert cauchy_schwarz_information(x, y, (1, 2)) == pytest.approx(cauchy_schwarz_reference(x, y, (1, 2)))


def test_cauchy_schwarz_of_a_normal_pair_is_that_of_the_smoothed_correlation():
    x = RNG.standard_normal((3000, 1))
    y = 0.75 * x + math.sqrt(1 - 0.75**2) * RNG.standard_normal((3000, 1))
    rho = 0.75 / (1 + 0.5**2)
    truth = math.log((4 - rho**2) / (4 * math.sqrt(1 - rho**2)))
    width = 0.5 * math.sqrt(2)
    assert cauchy_schwarz_information(x, y, (width, width)) == pytest.approx(truth, abs=0.03)


def test_renyi_information_tells_dependent_from_independent():
    x = RNG.standard_normal((300, 1))
    other = RNG.standard_normal((300, 1))
    assert renyi_information(x, x + 0.1 * other, (0.5, 0.5)) > 2 * renyi_information(x, other, (0.5, 0.5))


def test_spectral_entropy_is_the_logarithm_of_the_rank_of_isotropic_data():
    assert math.exp(spectral_entropy(RNG.standard_normal((5000, 6)))) == pytest.approx(6, rel=0.01)
    assert spectral_entropy(np.outer(RNG.standard_normal(100), np.ones(5))) == pytest.approx(0, abs=1e-6)


def test_binned_codes_and_their_entropy():
    x = np.array([[-3.0], [-0.9], [0.1], [0.95], [7.0]])
    np.testing.assert_array_equal(codes(x, 2, (-1, 1)), [0, 0, 1, 1, 1])
    assert entropy(np.array([5, 5]), corrected=False) == pytest.approx(math.log(2))
    assert entropy(np.array([5, 5])) == pytest.approx(math.log(2) + 1 / 20)
    assert len(np.unique(codes(RNG.standard_normal((100, 1)), 4, "quantile"), return_counts=True)[1]) == 4
