"""The laws and what is minimised: formulas as in the papers, gradients exact, minima found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bntools.tools.scale_fit.laws import Law, evaluate
from bntools.tools.scale_fit.minimise import minimise
from bntools.tools.scale_fit.objective import Problem, curvature, huber, objective
from bntools.tools.scale_fit.starts import nonnegative

LAWS = [Law(name, floor) for name in ("power", "chinchilla", "kaplan") for floor in (True, False)]
IDS = [f"{law.name}{'+E' if law.irreducible else ''}" for law in LAWS]


def vectors(law, count, random):
    """Parameter vectors of the sizes that fits take."""
    theta = random.normal(0, 0.7, (count, len(law.parameters)))
    theta[:, 1] = random.uniform(0.05, 1.2, count)
    if law.joint:
        theta[:, 3] = random.uniform(0.05, 1.2, count)
    return theta


def problem(law, random, runs=17, delta=0.3):
    x = random.normal(0, 2, (2 if law.joint else 1, runs))
    return Problem(law, x - x.mean(1, keepdims=True), random.normal(0.8, 0.4, runs), delta)


def slow_loss(law, values, x):
    """The papers' formulas, a run at a time."""
    e = values.get("E", 0.0)
    if law.name == "power":
        return e + values["A"] * x[0] ** -values["alpha"]
    if law.name == "chinchilla":
        return e + values["A"] * x[0] ** -values["alpha"] + values["B"] * x[1] ** -values["beta"]
    n_c, d_c = values["A"] ** (1 / values["alpha"]), values["B"] ** (1 / values["beta"])
    return e + ((n_c / x[0]) ** (values["alpha"] / values["beta"]) + d_c / x[1]) ** values["beta"]


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_a_law_says_what_its_paper_says(law):
    random = np.random.default_rng(0)
    given = problem(law, random)
    for theta in vectors(law, 20, random):
        values = dict(zip(law.parameters, theta, strict=True))
        values |= {name: math.exp(values[name]) for name in ("A", "B", "E") if name in values}
        expected = [math.log(slow_loss(law, values, np.exp(column))) for column in given.x.T]
        assert evaluate(law, theta[None], given.x).log_loss[0] == pytest.approx(
            expected, rel=1e-11, abs=1e-11
        )


@pytest.mark.parametrize("law", LAWS, ids=IDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_the_objective(law, weighted):
    """Central differences; a wrong gradient would make every fit stop short without a word."""
    random = np.random.default_rng(1)
    given = problem(law, random)
    theta = vectors(law, 8, random)
    weights = random.uniform(0, 3, (8, given.y.size)) if weighted else None
    _, gradient = objective(given, theta, weights)
    for index in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, index] = 1e-6
        up, down = (objective(given, theta + sign * step, weights)[0] for sign in (1, -1))
        assert gradient[:, index] == pytest.approx((up - down) / 2e-6, rel=2e-6, abs=1e-8)


def test_the_objective_is_the_sum_of_huber_losses_and_repeats_count():
    random = np.random.default_rng(2)
    law = Law("chinchilla")
    given = problem(law, random, delta=0.1)
    theta = vectors(law, 3, random)
    residual = evaluate(law, theta, given.x).log_loss - given.y
    by_hand = [
        sum(r * r / 2 if abs(r) <= 0.1 else 0.1 * (abs(r) - 0.05) for r in row) for row in residual.tolist()
    ]
    assert objective(given, theta)[0] == pytest.approx(by_hand, rel=1e-12)
    assert huber(residual, 0.1).sum(1) == pytest.approx(by_hand, rel=1e-12)
    counts = random.integers(0, 3, given.y.size)
    drawn = np.repeat(np.arange(given.y.size), counts)
    repeated = Problem(law, given.x[:, drawn], given.y[drawn], 0.1)
    weights = np.repeat(counts[None].astype(float), 3, 0)
    assert objective(given, theta, weights)[0] == pytest.approx(objective(repeated, theta)[0], rel=1e-12)
    assert curvature(given, theta, weights) == pytest.approx(curvature(repeated, theta), rel=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_vectors_out_of_all_bounds_are_infinitely_bad_not_an_error(law):
    theta = np.full((3, len(law.parameters)), 1.0)
    theta[0, 0], theta[1, 1], theta[2] = 1e4, 1e6, np.nan
    value, gradient = objective(problem(law, np.random.default_rng(3)), theta)
    assert np.isposinf(value).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_least_squares_with_signs_is_that_of_lawson_and_hanson(size):
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is the reference")
    random = np.random.default_rng(4)
    matrices = random.normal(0.3, 1, (60, 12, size))
    targets = random.normal(0, 1, (60, 12))
    normal = np.einsum("bri,brj->bij", matrices, matrices)
    found = nonnegative(normal, np.einsum("bri,br->bi", matrices, targets))
    expected = [optimize.nnls(m, t)[0] for m, t in zip(matrices, targets, strict=True)]
    assert found == pytest.approx(np.array(expected), abs=1e-9)
    assert (found == 0).any()
    assert (found > 0).any()


def test_the_minimiser_ends_at_the_minimum_of_a_narrow_curved_valley():
    def rosenbrock(point, which):
        x, y = point.T
        value = (1 - x) ** 2 + (10 + which) * (y - x * x) ** 2
        gradient = [-2 * (1 - x) - 4 * (10 + which) * x * (y - x * x), 2 * (10 + which) * (y - x * x)]
        return value, np.stack(gradient, 1)

    start = np.random.default_rng(5).normal(0, 1, (40, 2))
    found = minimise(rosenbrock, start, np.repeat(np.eye(2)[None], 40, 0))
    assert found.theta == pytest.approx(np.ones((40, 2)), abs=1e-5)
    assert found.steps < 100


def test_the_minimiser_copes_with_corners():
    """Absolute values, the limit of a Huber loss with a small delta: a line search that only shortens stalls here."""

    def corners(point, which):
        return np.abs(point[:, 0]) + 3 * np.abs(point[:, 1] - point[:, 0]), np.stack(
            [
                np.sign(point[:, 0]) - 3 * np.sign(point[:, 1] - point[:, 0]),
                3 * np.sign(point[:, 1] - point[:, 0]),
            ],
            1,
        )

    start = np.random.default_rng(6).normal(0, 1, (30, 2))
    found = minimise(corners, start, np.repeat(np.eye(2)[None], 30, 0))
    assert np.max(found.value) < 1e-4
