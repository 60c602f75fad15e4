"""What a figure of mutual information promises: a right value, an interval that holds it, a cap, flags."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bntools.core.errors import BnError
from bntools.core.information import copula, intervals
from bntools.core.information.corrected import corrected
from bntools.core.information.estimate import mutual_information
from bntools.core.information.estimators import ESTIMATORS, Estimation
from bntools.core.information.reference_entropy import reference_information, three_entropies


def _normal(rows: int, width: int, correlation: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width))
    return x, correlation * x + math.sqrt(1 - correlation**2) * rng.standard_normal((rows, width))


def _student(rows: int, width: int, freedom: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((rows, 2 * width)) * np.sqrt(freedom / rng.chisquare(freedom, (rows, 1)))
    return z[:, :width], z[:, width:]


@pytest.mark.parametrize(("width", "correlation"), [(1, 0.5), (3, 0.6), (20, 0.3)])
def test_normal_pairs_are_within_their_interval(width, correlation):
    found = mutual_information(*_normal(3000, width, correlation))
    truth = -width / 2 * math.log(1 - correlation**2)
    assert found["low"] <= truth <= found["high"]
    assert found["value"] == pytest.approx(truth, abs=0.12)
    assert found["estimator"] == "t-copula"


@pytest.mark.parametrize(("width", "freedom", "truth"), [(1, 1, 0.2242), (2, 1, 0.4319), (3, 2, 0.2909)])
def test_dependence_without_correlation_is_seen(width, freedom, truth):
    x, y = _student(4000, width, freedom)
    assert mutual_information(x, y)["value"] == pytest.approx(truth, abs=0.05)
    assert mutual_information(np.arcsinh(x), y**3)["value"] == pytest.approx(truth, abs=0.05)


def test_what_no_copula_of_the_family_explains_is_left_to_neighbours():
    rng = np.random.default_rng(3)
    x = rng.random((4000, 1))
    found = mutual_information(x, x + rng.uniform(-0.25, 0.25, (4000, 1)))
    assert found["estimator"] == "corrected"
    assert found["low"] <= 0.9431 <= found["high"]


def test_intervals_hold_the_truth_of_closed_form_channels():
    inside = []
    for seed in range(8):
        rng = np.random.default_rng([seed, 5])
        z = rng.standard_normal(2000)
        classes = rng.integers(0, 4, 2000)
        y = rng.gamma(2, 1, 2000)
        pairs = [
            (z, 0.9 * z + math.sqrt(0.19) * rng.standard_normal(2000), 0.8304),
            (classes + 2 * rng.random(2000), classes, math.log(4) - 0.75 * math.log(2)),
            (rng.exponential(1 / y), y, 0.2296),
        ]
        for first, second, truth in pairs:
            found = mutual_information(first, second)
            inside.append(found["low"] <= truth <= found["high"])
    assert np.mean(inside) >= 0.8  # of 24 with 0.95 each, fewer than 20 come once in ten thousand


def test_a_value_near_the_cap_is_flagged_and_never_above_it():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 16))
    weights = rng.standard_normal((16, 8)) / 4
    found = mutual_information(x, x @ weights + 0.001 * rng.standard_normal((300, 8)))
    assert found["cap"] == pytest.approx(math.log(300))
    assert found["value"] <= found["cap"]
    assert {"near_cap", "unreliable"} <= set(found["flags"])


def test_labels_cap_the_figure_at_their_entropy():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 2000)
    found = mutual_information(labels + 0.01 * rng.standard_normal(2000), labels)
    assert found["estimator"] == "ross"
    assert found["cap"] == pytest.approx(math.log(4), abs=0.01)
    assert found["value"] == pytest.approx(found["cap"], abs=0.05)


@pytest.mark.parametrize("swap", [False, True])
def test_symmetric_noise_on_labels(swap):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 10, 5000)
    y = np.where(rng.random(5000) < 0.1, (x + rng.integers(1, 10, 5000)) % 10, x)
    found = mutual_information(*((y, x) if swap else (x, y)))
    assert found["estimator"] == "miller-madow"
    assert found["low"] <= 1.7578 <= found["high"]


def test_rows_that_repeat_are_not_taken_for_density():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2000, 1)).round(1)
    found = mutual_information(x, x + rng.standard_normal((2000, 1)))
    assert found["estimator"] == "mixed"
    assert "duplicates" in found["flags"]
    assert found["value"] == pytest.approx(math.log(2) / 2, abs=0.1)


def test_a_curve_in_the_plane_is_called_a_manifold():
    rng = np.random.default_rng(1)
    t = rng.random(2000)
    roll = np.column_stack([np.cos(6 * t), np.sin(6 * t)]) * (1 + t[:, None])
    found = mutual_information(roll, t + 0.3 * rng.standard_normal(2000))
    assert "manifold" in found["flags"]
    assert "reference" not in found["votes"]


def test_bits_are_nats_over_the_logarithm_of_two():
    x, y = _normal(500, 1, 0.8)
    nats, bits = (mutual_information(x, y, Estimation(units=units)) for units in ("nats", "bits"))
    for key in ("value", "low", "high", "cap", "spread"):
        assert bits[key] == pytest.approx(nats[key] / math.log(2))


def test_the_same_seed_gives_the_same_figure():
    x, y = _normal(800, 2, 0.5)
    assert mutual_information(x, y) == mutual_information(x, y)


def test_constant_columns_are_left_out_and_a_constant_side_tells_nothing():
    x, y = _normal(400, 1, 0.5)
    with_constant = mutual_information(np.hstack([x, np.ones((400, 1))]), y)
    assert "constant_columns" in with_constant["flags"]
    assert with_constant["value"] == mutual_information(x, y)["value"]
    nothing = mutual_information(np.ones(400), y)
    assert (nothing["value"], nothing["cap"]) == (0, 0)
    assert "constant" in nothing["flags"]


def test_more_columns_than_rows_bear_are_projected_and_said_to_be():
    x, y = _normal(400, 60, 0.2)
    assert "projected" in mutual_information(x, y)["flags"]


@pytest.mark.parametrize(
    ("x", "y", "labels", "message"),
    [
        (np.ones(100), np.ones(99), None, "rows"),
        (np.ones(49), np.ones(49), None, "at least 50"),
        (np.r_[np.nan, np.arange(99.0)], np.arange(100.0), None, "NaN"),
        (np.arange(100.0), np.arange(100) + 0.5, True, "whole numbers"),
        (np.array(["a"] * 100), np.arange(100.0), None, "not numbers"),
    ],
)
def test_what_cannot_be_estimated_is_refused(x, y, labels, message):
    with pytest.raises(BnError, match=message) as error:
        mutual_information(x, y, labels=labels)
    assert error.value.code == 3


def test_half_precision_is_read():
    x, y = _normal(1000, 1, 0.9)
    found = mutual_information(x.astype(np.float16), y.astype(np.float16))
    assert found["value"] == pytest.approx(0.83, abs=0.15)


@pytest.mark.parametrize(
    "name", [name for name in ESTIMATORS if name not in ("ross", "renyi", "cauchy-schwarz")]
)
def test_every_estimator_by_name_sees_a_strong_dependence(name):
    x, y = _normal(1500, 1, 0.9)
    found = mutual_information(x, y, Estimation(estimator=name))
    assert found["value"] == pytest.approx(0.83, abs=0.3 if name == "binning" else 0.15)
    assert found["estimator"] == name


def test_kernel_estimators_by_name_tell_dependent_from_independent():
    x, y = _normal(800, 1, 0.9)
    for name in ("renyi", "cauchy-schwarz"):
        near, far = (mutual_information(x, other, Estimation(estimator=name, interval=False))["value"]
                     for other in (y, y[::-1]))  # fmt: skip
        assert near > 3 * far


def test_the_correction_takes_off_the_bias_of_neighbours_in_many_dimensions():
    x, y = _normal(4000, 12, 0.4)
    found = corrected(x, y, rng=np.random.default_rng(0))
    truth = -6 * math.log(1 - 0.16)
    assert found.neighbours < 0.6 * truth
    assert found.debiased == pytest.approx(truth, abs=0.12)
    assert found.accepted


def test_the_t_copula_has_the_freedom_of_the_draw_through_any_monotone_maps():
    x, y = _student(6000, 2, 3)
    found = copula.fit(np.sinh(x), y**3)
    assert found.freedom == pytest.approx(3, rel=0.15)
    assert math.isinf(copula.fit(*_normal(3000, 2, 0.5)).freedom)


def test_equal_numbers_share_a_rank():
    np.testing.assert_allclose(
        copula.ranks(np.array([[5.0], [1], [5], [0]])).ravel(), [0.75, 0.375, 0.75, 0.125]
    )


def test_a_shrunk_copula_carries_the_information_without_bias():
    x, y = _normal(300, 15, 0.0)
    model = copula.fit(x, y)
    chance = copula.shrunk(model, 300)
    assert np.abs(chance.dispersion[:15, 15:]).max() < np.abs(model.dispersion[:15, 15:]).max()


def test_subsamples_give_the_error_of_a_mean():
    values = np.random.default_rng(0).standard_normal(4000)
    error, freedom = intervals.standard_error(
        lambda rows: float(values[rows].mean()), 4000, np.random.default_rng(1)
    )
    assert error == pytest.approx(1 / math.sqrt(4000), rel=0.5)
    assert freedom == 19
    few, _ = intervals.standard_error(lambda rows: float(values[rows].mean()), 400, np.random.default_rng(1))
    assert few < 3 / math.sqrt(400)
    jackknife, _ = intervals.standard_error(
        lambda rows: float(values[:400][rows].mean()), 400, np.random.default_rng(1)
    )
    assert jackknife == pytest.approx(1 / math.sqrt(400), rel=0.5)


def test_entropies_by_neighbours_agree_on_a_normal_pair():
    x, y = _normal(3000, 2, 0.7)
    truth = -math.log(1 - 0.49)
    assert reference_information(x, y) == pytest.approx(truth, abs=0.1)
    assert three_entropies(x, y) == pytest.approx(truth, abs=0.15)
