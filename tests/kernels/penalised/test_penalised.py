"""Penalised paths: penalties as defined, proximal steps that minimise, fits at stationary points, both ways equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.penalised.accelerated_gradient import accelerated_gradient, smoothness
from bntools.kernels.penalised.coordinate_descent import gaussian_path
from bntools.kernels.penalised.penalties import (
    LASSO,
    MCP,
    SCAD,
    concave_gradient,
    curved_prox,
    prox,
    value,
)
from bntools.kernels.penalised.weighted_descent import LOGISTIC, POISSON, likelihood_path, mean_loss

KINDS = [(LASSO, 1.0), (SCAD, 3.7), (MCP, 3.0), (MCP, 1.5)]


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 40))
    x = x + 0.5 * np.roll(x, 1, 1)
    x = ((x - x.mean(0)) / x.std(0)).T.copy()
    b = np.zeros(40)
    b[:4] = [1, -1, 0.7, 0.5]
    y = b @ x + 0.5 * rng.standard_normal(60)
    return x, y - y.mean()


@pytest.mark.parametrize(("kind", "shape"), KINDS)
def test_a_penalty_is_the_integral_of_its_slope(kind, shape):
    grid = np.linspace(0, 6, 60001)
    values = np.array([value(b, 1.0, shape, kind) for b in grid])
    slope = 1 + concave_gradient(grid, 1.0, shape, kind)
    summed = np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(grid))])
    np.testing.assert_allclose(values, summed, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(z=st.floats(-6, 6), lam=st.floats(0.01, 2), v=st.floats(0.05, 3), case=st.sampled_from(KINDS))
def test_no_point_of_a_grid_beats_the_proximal_step(z, lam, v, case):
    kind, shape = case
    grid = np.concatenate([np.linspace(-8, 8, 4001), [0.0]])
    penalties = np.array([value(b, lam, shape, kind) for b in grid])
    for step, curvature in ((prox(z, lam, shape, kind), 1.0), (curved_prox(z, v, lam, shape, kind), v)):
        best = (curvature * (grid - z) ** 2 / 2 + penalties).min()
        assert curvature * (step - z) ** 2 / 2 + value(step, lam, shape, kind) <= best + 1e-9


def test_an_orthonormal_design_gives_the_firm_threshold():
    rng = np.random.default_rng(3)
    q = np.linalg.qr(rng.standard_normal((30, 6)))[0].T * np.sqrt(30)
    y = rng.standard_normal(30) * 2
    z = q @ y / 30
    path = gaussian_path(q.copy(), y, np.array([0.4, 0.2]), kind=MCP, shape=3.0)
    for b, lam in zip(path.coefficients, (0.4, 0.2), strict=True):
        firm = np.where(
            np.abs(z) <= lam, 0, np.where(np.abs(z) <= 3 * lam, np.sign(z) * (np.abs(z) - lam) * 1.5, z)
        )
        np.testing.assert_allclose(b, firm, atol=1e-7)


def objective(x, y, b, lam, case):
    return ((y - b @ x) ** 2).mean() / 2 + sum(value(c, lam, case[1], case[0]) for c in b)


@pytest.mark.parametrize("case", KINDS)
def test_coordinate_descent_and_the_accelerated_gradient_reach_the_same_objective(problem, case):
    x, y = problem
    largest = np.abs(x @ y).max() / len(y)
    lambdas = np.geomspace(largest, 0.2 * largest, 12)
    path = gaussian_path(x, y, lambdas, kind=case[0], shape=case[1])
    b, lipschitz = np.zeros(len(x)), smoothness(x, *case)
    for lam, ours in zip(lambdas, path.coefficients, strict=True):
        b = accelerated_gradient(x, y, lam, b, kind=case[0], shape=case[1], lipschitz=lipschitz).coefficients
        assert objective(x, y, ours, lam, case) == pytest.approx(objective(x, y, b, lam, case), abs=1e-8)
        gradient = x @ (y - ours @ x) / len(y) - concave_gradient(ours, lam, case[1], case[0])
        active = ours != 0
        np.testing.assert_allclose(gradient[active], lam * np.sign(ours[active]), atol=1e-5)
        assert np.all(np.abs(gradient[~active]) <= lam * (1 + 1e-8))


def test_the_first_step_is_zero_and_a_strong_rule_that_errs_is_repaired(problem):
    x, y = problem
    largest = np.abs(x @ y).max() / len(y) * (1 + 1e-9)
    path = gaussian_path(x, y, np.array([largest, 0.02 * largest]), kind=MCP, shape=3.0)
    assert not path.coefficients[0].any()
    gradient = x @ (y - path.coefficients[1] @ x) / len(y)
    assert np.abs(gradient[path.coefficients[1] == 0]).max() <= 0.02 * largest * (1 + 1e-8)


@pytest.mark.parametrize("family", [LOGISTIC, POISSON])
@pytest.mark.parametrize("case", KINDS[:3])
def test_likelihood_fits_are_stationary_and_the_intercept_is_free(problem, family, case):
    x, y = problem
    rng = np.random.default_rng(5)
    outcome = (y > 0.3).astype(float) if family == LOGISTIC else rng.poisson(np.exp(0.3 * y)).astype(float)
    largest = np.abs(x @ (outcome - outcome.mean())).max() / len(y)
    lambdas = np.geomspace(largest, 0.3 * largest, 6)
    path, intercepts = likelihood_path(
        x, outcome, lambdas, family=family, kind=case[0], shape=case[1], tol=1e-9
    )
    for b, lam, intercept in zip(path.coefficients, lambdas, intercepts, strict=True):
        eta = intercept + b @ x
        mu = 1 / (1 + np.exp(-eta)) if family == LOGISTIC else np.exp(eta)
        assert (outcome - mu).mean() == pytest.approx(0, abs=1e-6)
        gradient = x @ (outcome - mu) / len(y) - concave_gradient(b, lam, case[1], case[0])
        np.testing.assert_allclose(gradient[b != 0], lam * np.sign(b[b != 0]), atol=1e-5)
        assert np.all(np.abs(gradient[b == 0]) <= lam * (1 + 1e-6))


def test_the_mean_loss_is_minus_the_log_likelihood():
    eta = np.array([-40.0, -0.3, 2.0])
    y = np.array([0.0, 1.0, 1.0])
    slow = -(y * eta - np.log1p(np.exp(eta))).mean()
    assert mean_loss(eta, y, LOGISTIC) == pytest.approx(slow, abs=1e-12)
    assert mean_loss(eta, y, POISSON) == pytest.approx((np.exp(eta) - y * eta).mean(), abs=1e-12)
