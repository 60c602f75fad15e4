"""The laws: what they are exact for, what they may never predict, and each beside a slow version of itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.core.errors import BnError
from bntools.tools.data_mix.laws import bimix, exponential, fitted, links, projektor, trees
from bntools.tools.data_mix.laws.joint import Data, Law, Prior
from bntools.tools.data_mix.runs.runs import Runs

QUICK = fitted.Sampling(draws=24, steps=12)


def grid(sources=3, steps=4):
    from bntools.tools.data_mix.choose.simplex import grid as simplex

    return simplex(sources, steps)


def runs_of(law, mixtures, sizes, kind="loss", noise=0.0, seed=0):
    """Runs of law(p, n) for every mixture and size."""
    weights = np.repeat(mixtures, len(sizes), axis=0)
    n = np.tile(np.array(sizes, float), len(mixtures))
    metric = np.array([law(p, size) for p, size in zip(weights, n, strict=True)])
    metric = metric * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    names = tuple("abcdef"[: mixtures.shape[1]])
    return Runs(names, weights, n, metric, kind, np.zeros(len(n), int))


@given(st.sampled_from(links.KINDS), st.floats(-40, 40), st.floats(0, 0.2))
def test_no_z_leaves_the_range_of_the_metric(kind, z, floor):
    value = float(links.backward(kind, np.array([z]), floor)[0])
    assert value >= floor
    assert value <= 1 or kind in ("loss", "score")


@given(st.sampled_from(links.KINDS), st.floats(0.25, 0.9), st.floats(0, 0.2))
def test_links_come_back_and_know_their_slopes(kind, value, floor):
    x = np.array([value])
    assert links.backward(kind, links.forward(kind, x, floor), floor) == pytest.approx(x, rel=1e-9)
    step = 1e-6
    rise = links.forward(kind, x + step, floor) - links.forward(kind, x - step, floor)
    assert links.slope(kind, x, floor) == pytest.approx(rise / (2 * step), rel=1e-4)


def test_the_posterior_is_that_of_dense_gaussian_algebra():
    """One setting: mean, standard deviation and evidence by inverses and determinants, number by number."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(3), 6), rng.dirichlet(np.ones(3), 2)
    u, v = rng.uniform(-1, 0, 6), np.array([0.5, 2.0])
    y = rng.uniform(0.2, 0.5, 6)
    theta = np.array([[-0.5, -2.0, -0.8, -3.0, -1.0, 0.5]])
    prior = Prior()
    law = Law(Data(p, u, y, "error", np.zeros((6, 0))), prior)
    value, draws = law.evidence(theta)
    mean, sd = law.predict(draws, q, v, np.zeros((2, 0)))

    s0, s1, length, noise = np.exp(theta[0, :4])
    rate = theta[0, 5]
    c = y.min() / (1 + math.exp(1.0))

    def t(x):
        return (1 - math.exp(-rate * x)) / rate

    def k(a, x, b, w):
        near = math.exp(-sum((math.sqrt(i) - math.sqrt(j)) ** 2 for i, j in zip(a, b, strict=True)) / (2 * length**2))
        return 9 + 0.25 * t(x) * t(w) + near * (s0**2 + s1**2 * t(x) * t(w))

    level = np.log(y / (1 - y)).mean()
    z = np.log((y - c) / (1 - y)) - level
    slope = 1 / (y - c) + 1 / (1 - y)
    size = (noise * np.exp(-prior.decay * u) * y * slope) ** 2
    dense = np.array([[k(p[i], u[i], p[j], u[j]) for j in range(6)] for i in range(6)]) + np.diag(size)
    cross = np.array([[k(p[i], u[i], q[j], v[j]) for j in range(2)] for i in range(6)])
    inverse = np.linalg.inv(dense)
    assert mean[0] == pytest.approx(cross.T @ inverse @ z + level, rel=1e-5)
    inside = [k(q[j], v[j], q[j], v[j]) - cross[:, j] @ inverse @ cross[:, j] for j in range(2)]
    assert sd[0] == pytest.approx(np.sqrt(inside), rel=1e-4)
    score = ((theta[0] - prior.mean) / prior.sd) ** 2
    wanted = -0.5 * z @ inverse @ z - 0.5 * np.linalg.slogdet(dense)[1] + np.log(slope).sum() - 0.5 * score.sum()
    assert value[0] == pytest.approx(wanted, rel=1e-6)


def test_a_power_law_without_noise_is_carried_on():
    def law(p, n):
        return (1 + p[0] + 2 * (p[1] - 0.3) ** 2) * n**-0.3

    found = fitted.fit(runs_of(law, grid(3, 3), (100, 200, 400)), sampling=QUICK)
    p = np.array([[0.3, 0.3, 0.4], [0.1, 0.2, 0.7]])
    wanted = np.array([law(row, 3200) for row in p])
    drawn = found.noisy(found.sample(p, np.full(2, 3200.0)), np.full(2, 3200.0))
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    assert ((low < wanted) & (wanted < high)).all()
    # eight times the largest run; a hundredth of slope is a fiftieth of the loss there, the prior of levelling off more
    assert np.median(drawn, 0) == pytest.approx(wanted, rel=0.1)


def test_a_planted_law_is_inside_its_intervals_nine_times_in_ten():
    """Floors and slopes that differ by mixture; coverage of 90 % intervals over problems, by the binomial's error."""
    inside = []
    for seed in range(8):
        rng = np.random.default_rng([7, seed])
        a, floor, slope = rng.normal(0, 0.5, 3), rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.5)

        def law(p, n, a=a, floor=floor, slope=slope):
            return math.exp(a @ p) * (floor + (1 - floor) * (n / 1000) ** -slope)

        mixtures = rng.dirichlet(np.ones(3), 10)
        found = fitted.fit(runs_of(law, mixtures, (250, 500, 1000), noise=0.02, seed=seed), sampling=QUICK)
        p, n = rng.dirichlet(np.ones(3), 4), np.full(4, 4000.0)
        low, high = np.quantile(found.sample(p, n), [0.05, 0.95], axis=0)
        wanted = np.array([law(row, 4000) for row in p])
        inside.append(((low < wanted) & (wanted < high)).mean())
    # 8 problems of nearly common fate: 0.9 - 3 sqrt(0.09 / 8)
    assert np.mean(inside) > 0.58


def test_a_source_split_in_two_changes_no_prediction():
    def law(p, n):
        return 0.5 + (p[0] - 0.4) ** 2 + n**-0.5

    whole = grid(2, 8)
    split = np.column_stack([whole[:, 0], whole[:, 1] / 2, whole[:, 1] / 2])
    one = fitted.fit(runs_of(law, whole, (100, 300)), sampling=QUICK)
    weights, n = one.runs.weights, np.full(1, 900.0)
    other = fitted.fit(
        Runs(("a", "b", "c"), np.repeat(split, 2, 0), one.runs.n, one.runs.metric, "loss", one.runs.seed), sampling=QUICK
    )
    assert len(weights) == len(other.runs.weights)
    first = one.expected(np.array([[0.3, 0.7]]), n)
    assert other.expected(np.array([[0.3, 0.35, 0.35]]), n) == pytest.approx(first, rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_every_draw_is_a_possible_error(seed):
    rng = np.random.default_rng(seed)
    mixtures = rng.dirichlet(np.ones(3), 5)
    n = np.tile([100.0, 200.0], 5)
    runs = Runs(("a", "b", "c"), np.repeat(mixtures, 2, 0), n, rng.uniform(0.01, 0.99, 10), "error", np.zeros(10, int))
    found = fitted.fit(runs, sampling=fitted.Sampling(draws=8, steps=4))
    drawn = found.noisy(found.sample(grid(), np.full(15, 1e6)), np.full(15, 1e6))
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()


def test_projektor_is_exact_where_its_equations_hold():
    def distance(p):
        return (p**2).sum(1), 2 * p

    def law(p, n):
        plane = p @ [0.3, 0.1, 0.2] + 0.2 * p[0] ** 2
        return (0.5 + plane) + (0.1 + 0.3 * p[1] ** 2) * (p**2).sum() - 0.02 * math.log(n) * (1 + p[0])

    found = projektor.fit(runs_of(law, grid(3, 6), (100, 400)), distance)
    points = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    assert found.predict(points, 9000) == pytest.approx([law(p, 9000) for p in points], abs=1e-6)
    tangent = np.array([1.0, -1.0, 0.0]) * 1e-5
    rise = (found.predict(points + tangent, 9000) - found.predict(points - tangent, 9000)) / 2e-5
    slope = found.gradient(points, 9000)
    assert slope[:, 0] - slope[:, 1] == pytest.approx(rise, rel=1e-4)
    assert (points * slope).sum(1) == pytest.approx(np.zeros(5), abs=1e-9)


def test_mirror_descent_ends_at_the_best_mixture_of_a_bowl():
    goal = np.array([0.2, 0.5, 0.3])
    found = projektor.fit(runs_of(lambda p, n: 1 + ((p - goal) ** 2).sum() - 0.01 * math.log(n), grid(), (100, 200)))
    best = found.descend(1000, 3)
    assert best == pytest.approx(goal, abs=1e-3)
    assert best.sum() == pytest.approx(1, abs=1e-9)


def test_the_exponential_law_recovers_itself_and_refuses_few_runs():
    t = np.array([-1.0, 0.5, 0.2])
    runs = runs_of(lambda p, n: 0.4 + 0.8 * math.exp(t @ p), grid(), (100,))
    found = exponential.fit(runs)
    points = np.random.default_rng(1).dirichlet(np.ones(3), 6)
    # the ridge on t costs a little
    assert found.predict(points, 100) == pytest.approx(0.4 + 0.8 * np.exp(points @ t), rel=0.01)
    with pytest.raises(BnError, match="4 runs at size 100"):
        exponential.fit(runs.at(np.arange(4)))


def test_two_sizes_give_the_power_law_through_both():
    first, second = np.array([2.0, 1.0]), np.array([1.0, 0.25])
    assert exponential.two_point([first, second], (100, 200), 400) == pytest.approx([0.5, 0.0625])


def test_bimix_recovers_itself_and_refuses_what_it_has_no_value_for():
    def domain(r, n):
        return r**-0.1 * (0.8 * (n / 1000) ** -0.4 + 1.5)

    mixtures = grid(2, 6)[1:-1]
    runs = runs_of(lambda p, n: 0.5 * (domain(p[0], n) + domain(p[1], n)), mixtures, (500, 1000, 2000))
    losses = {name: np.array([domain(r, n) for r, n in zip(runs.weights[:, i], runs.n, strict=True)])
              for i, name in enumerate("ab")}  # fmt: skip
    runs = Runs(runs.sources, runs.weights, runs.n, runs.metric, "loss", runs.seed, losses)
    value = bimix.fit(runs).predict(np.array([[0.25, 0.75]]), 8000)
    assert value == pytest.approx([0.5 * (domain(0.25, 8000) + domain(0.75, 8000))], rel=0.01)
    with pytest.raises(BnError, match="loss for each source"):
        bimix.fit(Runs(runs.sources, runs.weights, runs.n, runs.metric, "loss", runs.seed))


def test_a_split_is_the_best_of_all_splits():
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 2)), rng.random(12)
    tree = trees._grown(x, y, np.arange(12), 1)
    best = min(
        sum(((y[side] - y[side].mean()) ** 2).sum() for side in (x[:, c] <= v, x[:, c] > v))
        for c in range(2)
        for v in (np.sort(x[:, c])[i : i + 2].mean() for i in range(1, 10))
    )
    inside = x[:, tree.column] <= tree.threshold
    assert sum(((y[s] - y[s].mean()) ** 2).sum() for s in (inside, ~inside)) == pytest.approx(best)


def test_boosted_trees_learn_a_step():
    x = np.random.default_rng(0).random((60, 2))
    found = trees.boost(x, np.where(x[:, 0] > 0.5, 2.0, 1.0))
    assert found.predict(np.array([[0.9, 0.1], [0.1, 0.9]])) == pytest.approx([2, 1], abs=0.05)


def test_the_mean_of_the_best_simulated_mixtures_is_near_the_best_one():
    runs = runs_of(lambda p, n: 1 + ((p - [0.2, 0.5, 0.3]) ** 2).sum(), grid(3, 10), (100,))
    best = trees.fit(runs).choose(100, 3)
    assert best.sum() == pytest.approx(1, abs=1e-9)
    assert np.abs(best - [0.2, 0.5, 0.3]).max() < 0.1
