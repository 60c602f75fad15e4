"""The maps: what each loses, by definition and in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.tools.vec_index import gauge


@pytest.fixture(scope="module")
def moments():
    random = np.random.default_rng(0)
    x = random.normal(size=(800, 20)) * np.geomspace(3, 0.2, 20)
    turn = np.linalg.qr(random.normal(size=(20, 20)))[0]
    q = random.normal(size=(400, 20)) * np.geomspace(2, 0.3, 20) @ turn
    return q.T @ q / 400, x.T @ x / 800, q, x


@pytest.mark.parametrize("dims", [2, 7, 15])
def test_the_sphere_loses_least_and_searched_maps_no_more_than_principal_axes(moments, dims):
    queries, base = moments[:2]
    losses = {
        "sphere": gauge.sphere(queries, base, dims, 0.0),
        "fw": gauge.frank_wolfe(queries, base, dims),
        "es": gauge.eigen_search(queries, base, dims),
        "id": gauge.principal(base, dims),
    }
    losses = {name: gauge.loss(g, queries, base) for name, g in losses.items()}
    assert losses["sphere"] <= min(losses.values()) + 1e-6
    assert losses["fw"] <= losses["es"] + 1e-6
    assert losses["es"] <= losses["id"] + 1e-9


def test_the_loss_is_the_share_of_squared_products_lost(moments):
    queries, base, q, x = moments
    maps = gauge.sphere(queries, base, 6, 0.05)
    lost = q @ maps.queries @ maps.base.T @ x.T - q @ x.T
    assert gauge.loss(maps, queries, base) == pytest.approx((lost**2).sum() / ((q @ x.T) ** 2).sum())


def test_maps_of_full_rank_keep_every_product(moments):
    queries, base, q, x = moments
    for maps in (gauge.sphere(queries, base, 20, 0.01), gauge.principal(base, 20)):
        assert np.allclose(q @ maps.queries @ maps.base.T @ x.T, q @ x.T, atol=1e-8)


def test_with_queries_like_the_vectors_the_sphere_spans_the_principal_axes(moments):
    base = moments[1]
    ours, axes = gauge.sphere(base, base, 5, 0.0).base, gauge.principal(base, 5).base
    assert np.linalg.norm(ours - axes @ (axes.T @ ours)) < 1e-6 * np.linalg.norm(ours)


def test_the_gradient_is_that_of_autograd(moments):
    queries, base = moments[:2]
    random = np.random.default_rng(1)
    a, b = random.normal(size=(20, 4)), random.normal(size=(20, 4))
    at = torch.tensor(a, requires_grad=True)
    kq, kx, tb = (torch.tensor(m) for m in (queries, base, b))
    error = at @ tb.T - torch.eye(20, dtype=torch.float64)
    torch.trace(error.T @ kq @ error @ kx).backward()
    assert np.allclose(gauge.gradient(a, b, queries, base), at.grad.numpy())


@pytest.mark.parametrize("paper", [False, True])
def test_frank_wolfe_stays_among_matrices_of_norm_one(moments, paper):
    maps = gauge.frank_wolfe(moments[0], moments[1], 6, paper=paper)
    assert max(np.linalg.norm(m, 2) for m in maps) <= 1 + 1e-6


def test_shift_is_nothing_for_like_queries_and_large_for_queries_across(moments):
    base = moments[1]
    assert gauge.query_shift(base, base) == pytest.approx(0)
    assert gauge.query_shift(np.linalg.inv(base), base) > 0.7
