"""The residual critic: it starts at the copula, only held-out rows count, and it may raise a figure, not lower it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bntools.core.errors import BnError
from bntools.core.information import estimate
from bntools.core.information.critic import Critique, critique
from bntools.core.information.estimate import Chosen, mutual_information
from bntools.core.information.estimators import Estimation


def _normal(rows: int, correlation: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 1))
    return x, correlation * x + math.sqrt(1 - correlation**2) * rng.standard_normal((rows, 1))


def _folded(rows: int, seed: int = 0):
    """y is the size of x and noise: no monotone dependence, so that a copula of correlation sees next to nothing."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 1))
    return x, np.abs(x) + 0.3 * rng.standard_normal((rows, 1))


def test_an_untrained_critic_is_the_copula():
    found = critique(*_normal(2000, 0.8), steps=0)
    assert found.value == found.start
    assert found.gain == 0
    assert found.value == pytest.approx(-math.log(1 - 0.64) / 2, abs=4 * found.error)


def test_training_finds_what_no_copula_of_correlation_has():
    found = critique(*_folded(1200), steps=150)
    assert found.gain > 4 * found.gain_error
    assert found.gain > 0.2


def test_independent_sides_stay_at_nothing():
    rng = np.random.default_rng(0)
    found = critique(rng.standard_normal((800, 2)), rng.standard_normal((800, 2)), steps=60)
    assert found.value < 3 * found.error + 0.01


def test_the_same_seed_gives_the_same_bound():
    pair = _folded(300)
    assert critique(*pair, seed=3, steps=20) == critique(*pair, seed=3, steps=20)


@pytest.mark.parametrize(("bound", "estimator", "value"), [(0.9, "critic", 0.9), (0.52, "t-copula", 0.5)])
def test_only_a_bound_that_is_surely_higher_becomes_the_figure(bound, estimator, value):
    chosen = Chosen(0.5, "t-copula", "why", lambda rows: 0.5, {"t-copula": 0.5}, ("t-copula",))
    found = estimate._criticised(chosen, Critique(bound, 0.05, 0.5, 0.0, 0.0))
    assert (found.estimator, found.value) == (estimator, value)
    assert found.estimators["critic"] == bound


def test_a_figure_of_the_critic_has_the_interval_of_its_folds(monkeypatch):
    monkeypatch.setattr(estimate, "critique", lambda x, y, seed: Critique(1.2, 0.05, 0.4, 0.8, 0.05))
    found = mutual_information(*_normal(400, 0.5), Estimation(critic=True))
    assert found["estimator"] == "critic"
    assert found["value"] - found["low"] == pytest.approx(
        2.776 * 0.05, rel=0.01
    )  # t of four degrees of freedom
    assert "unreliable" in found["flags"], "the other estimators are far below"


def test_a_critic_needs_two_sides_of_numbers_and_some_rows():
    x, _ = _normal(400, 0.5)
    with pytest.raises(BnError, match="two sides of numbers"):
        mutual_information(x, (x[:, 0] > 0).astype(int), Estimation(critic=True))
    with pytest.raises(BnError, match="100 rows"):
        mutual_information(x[:60], x[60:120], Estimation(critic=True))
    with pytest.raises(BnError, match="auto"):
        Estimation(estimator="ksg", critic=True)
