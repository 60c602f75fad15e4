"""Choosing: the simplex and its limits, designs, the decision, the runs to make next."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bntools.core.errors import BnError
from bntools.tools.data_mix.choose import following
from bntools.tools.data_mix.choose.decide import Question, best_pilot, decide, needed
from bntools.tools.data_mix.choose.design import maximin
from bntools.tools.data_mix.choose.simplex import Limits, around, candidates, grid, landmarks
from bntools.tools.data_mix.laws import fitted
from bntools.tools.data_mix.runs.runs import Runs

QUICK = fitted.Sampling(draws=24, steps=12)
GOAL = np.array([0.5, 0.3, 0.2])


def bowl(mixtures, sizes=(100, 200, 400), seed=0, kind="loss"):
    weights = np.repeat(mixtures, len(sizes), axis=0)
    n = np.tile(np.array(sizes, float), len(mixtures))
    metric = (0.5 + 2 * ((weights - GOAL) ** 2).sum(1)) * (1 + 3 / np.sqrt(n))
    metric *= np.exp(0.005 * np.random.default_rng(seed).standard_normal(len(n)))
    return Runs(
        ("a", "b", "c"), weights, n, 1 / metric if kind == "score" else metric, kind, np.zeros(len(n), int)
    )


@pytest.fixture(scope="module")
def law():
    return fitted.fit(bowl(maximin(3, 12)), sampling=QUICK)


@pytest.mark.parametrize(("sources", "steps"), [(2, 5), (3, 4), (4, 3)])
def test_the_grid_is_every_mixture_of_its_steps(sources, steps):
    slow = {c for c in itertools.product(range(steps + 1), repeat=sources) if sum(c) == steps}
    assert {tuple(row) for row in np.round(grid(sources, steps) * steps).astype(int).tolist()} == slow


@given(st.integers(2, 7), st.integers(0, 10**6))
def test_mixtures_within_limits_add_up_to_one_and_cost_no_more(sources, seed):
    rng = np.random.default_rng(seed)
    upper = rng.uniform(0, 1, sources)
    upper = np.minimum(upper / upper.sum() * rng.uniform(1, 2), 1)
    upper[0] = 1.0
    price = rng.uniform(0.5, 3, sources)
    limits = Limits(upper, price)
    budget = 100 * float(limits.cheapest() @ price) * rng.uniform(1, 1.5)
    limits = limits._replace(budget=budget)
    found = limits.applied(np.vstack([rng.dirichlet(np.full(sources, 0.5), 20), np.eye(sources)]), 100)
    assert np.abs(found.sum(1) - 1).max() < 1e-9
    assert found.min() >= 0
    assert (found <= upper + 1e-9).all()
    assert (100 * found @ price <= budget * (1 + 1e-9)).all()


@given(st.integers(2, 8), st.floats(0.01, 1))
def test_all_that_is_looked_at_is_a_mixture(sources, scale):
    for found in (candidates(sources), around(np.full(sources, 1 / sources), scale, 40), landmarks(sources)):
        assert np.abs(found.sum(1) - 1).max() < 1e-9
        assert found.min() >= 0


def test_a_design_begins_with_corners_and_centre_and_repeats_nothing():
    found = maximin(3, 20)
    assert np.allclose(found[:4], np.vstack([np.eye(3), np.full((1, 3), 1 / 3)]))
    assert len(np.unique(np.round(found, 6), axis=0)) == 20


def test_a_design_goes_on_where_another_has_no_points():
    first = maximin(3, 7)
    more = maximin(3, 5, taken=first)
    away = ((np.sqrt(more)[:, None] - np.sqrt(first)) ** 2).sum(2).min(1)
    assert away.min() > 0.01


def test_the_law_finds_a_better_mixture_than_any_pilot(law):
    answer = decide(law, Question(3000.0, Limits.none(3)))
    assert answer.decision == "mixture"
    assert np.abs(answer.best - GOAL).max() < 0.1
    assert answer.best.sum() == pytest.approx(1, abs=1e-9)


def test_a_score_is_made_large():
    found = fitted.fit(bowl(maximin(3, 12), kind="score"), sampling=QUICK)
    answer = decide(found, Question(3000.0, Limits.none(3)))
    assert np.abs(answer.best - GOAL).max() < 0.1
    assert answer.draws[:, 0].mean() > answer.draws[:, 2].mean(), "more than uniform"


def test_noise_alone_is_no_reason_to_leave_the_best_pilot():
    rng = np.random.default_rng(0)
    runs = bowl(maximin(3, 6))
    runs = Runs(runs.sources, runs.weights, runs.n, np.exp(0.1 * rng.standard_normal(18)), "loss", runs.seed)
    answer = decide(fitted.fit(runs, sampling=QUICK), Question(3000.0, Limits.none(3)))
    assert answer.decision == "best pilot"
    assert answer.pilot == pytest.approx(best_pilot(runs))


@pytest.mark.parametrize(("mixtures", "least"), [(8, 0.95), (11, 0.95), (12, 0.8)])
def test_few_mixtures_must_be_surer_than_many(mixtures, least):
    runs = bowl(maximin(3, mixtures))
    assert needed(runs) == least
    law = fitted.fit(runs, sampling=QUICK)
    for confidence in (None, 0.0):
        answer = decide(law, Question(3000.0, Limits.none(3), confidence=confidence))
        gain = (answer.draws[:, 1] > answer.draws[:, 0]).mean()
        assert answer.chosen == int(gain < (least if confidence is None else confidence))


def test_caps_and_budgets_hold(law):
    limits = Limits(np.array([0.2, 1, 1]), np.array([1.0, 1.0, 5.0]), 1500.0)
    answer = decide(law, Question(1000.0, limits))
    for p in (answer.best, answer.pilot, *answer.rivals.values()):
        assert p[0] <= 0.2 + 1e-9
        assert 1000 * p @ limits.price <= 1500 * (1 + 1e-9)


def test_a_budget_without_a_size_is_spent(law):
    answer = decide(law, Question(None, Limits(np.ones(3), np.array([1.0, 2.0, 3.0]), 6000.0)))
    assert answer.n * (
        np.stack([answer.best, answer.pilot, *answer.rivals.values()]) @ [1, 2, 3]
    ) == pytest.approx(6000)


def test_a_budget_that_buys_nothing_is_refused(law):
    with pytest.raises(BnError, match="cost 3000 at least"):
        decide(law, Question(3000.0, Limits(np.ones(3), np.ones(3), 10.0)))
    with pytest.raises(BnError, match="add up to 0"):
        decide(law, Question(3000.0, Limits(np.full(3, 0.1), np.ones(3))))


def test_the_knowledge_gradient_is_that_of_many_imagined_results(law):
    """One run's gain by Monte Carlo over its result, target by target."""
    question = Question(3000.0, Limits.none(3))
    targets = following._targets(law, question)[:30]
    runs = (np.array([[0.2, 0.2, 0.6], [0.5, 0.4, 0.1]]), np.array([400.0, 100.0]))
    beliefs = following._beliefs(law, runs, (targets, np.full(30, 3000.0)))
    quick = following._gains(beliefs, 2, 1.0)
    rng = np.random.default_rng(0)
    for index in range(2):
        falls = []
        for s in range(len(beliefs.cov)):
            deviation = np.sqrt(beliefs.cov[s, index, index] + beliefs.noise[s, index])
            change = beliefs.cov[s, index, 2:] / deviation * beliefs.slope[s]
            falls += [
                beliefs.value.min() - (beliefs.value + x * change).min() for x in rng.standard_normal(4000)
            ]
        error = np.std(falls) / len(falls) ** 0.5
        # nine nodes for a kinked function: a few per cent beside the error of sampling
        assert quick[index] == pytest.approx(np.mean(falls), rel=0.1, abs=4 * error)


def test_proposed_runs_are_of_falling_use_and_end_at_the_least_gain(law):
    question = Question(3000.0, Limits.none(3))
    best = decide(law, question).best
    found = following.next_runs(law, question, best, 5)
    assert 1 <= len(found) <= 5
    assert [run.cost for run in found] == pytest.approx([run.n for run in found])
    assert following.next_runs(law, question, best, 5, least=1.0) == []
