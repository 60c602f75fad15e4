"""Gradients by pairs are those of automatic differentiation; the step keeps decoder rows on the sphere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.kernels.sparse import loops, selection
from bntools.kernels.sparse.training import SparseWeights, revive

B, M, D_IN, K = 32, 48, 16, 5


def example(seed=0):
    rng = np.random.default_rng(seed)
    weights = SparseWeights(M, D_IN, rng, half=False)
    weights.bd.value[:] = rng.standard_normal(D_IN).astype(np.float32) * 0.1
    weights.be.value[:] = rng.standard_normal(M).astype(np.float32) * 0.1
    weights.E += rng.standard_normal(weights.E.shape).astype(np.float32) * 0.05
    X = rng.standard_normal((B, D_IN)).astype(np.float32)
    return weights, X, selection.full(*selection.top(weights.encoder(), X - weights.bd.value, K))


@pytest.mark.parametrize("ends", [[M], [6, 12, 24, M]])
def test_gradients_are_those_of_autograd(ends):
    weights, X, support = example()
    total = float(np.square(X).sum())
    ends = np.array(ends, np.int32)
    found = weights.residual(X, support, ends, 1 / (len(ends) * total))
    slopes = np.where(support.values > 0, found.pulls, 0).astype(np.float32)
    E, D, be, bd = (
        torch.tensor(a, requires_grad=True)
        for a in (weights.E, weights.D, weights.be.value, weights.bd.value)
    )
    scores = torch.relu((torch.tensor(X) - bd) @ E.T + be)
    mask = torch.zeros(B, M)
    mask[
        torch.from_numpy(support.pair_rows.astype(np.int64)),
        torch.from_numpy(support.latents.astype(np.int64)),
    ] = 1
    z = scores * mask
    parts = [torch.where(torch.arange(M) < int(e), z, 0) @ D + bd for e in ends]
    loss = sum((p - torch.tensor(X)).square().sum() for p in parts) / (len(ends) * total)
    loss.backward()
    assert loss.item() == pytest.approx(float(found.errors.sum() / (len(ends) * total)), rel=1e-4)
    starts, order = np.empty(M + 1, np.int64), np.empty(len(slopes), np.int64)
    loops.by_latent(support.latents, starts, order)
    levels = np.searchsorted(ends, support.latents, "right").astype(np.uint8)
    by_D, by_E = np.empty_like(weights.D), np.empty_like(weights.E)
    seen = X - weights.bd.value
    loops.gradients(
        seen, found.G, support.pair_rows, levels, support.values, slopes, starts, order, 0, M, by_D, by_E
    )  # fmt: skip
    by_be = np.bincount(support.latents, slopes, M)
    assert np.allclose(by_D, D.grad, atol=1e-5)
    assert np.allclose(by_E, E.grad, atol=1e-5)
    assert np.allclose(by_be, be.grad, atol=1e-5)
    assert np.allclose(found.G[0].sum(0) - by_be @ weights.E, bd.grad, atol=1e-5)


def test_a_step_is_adam_on_the_sphere():
    weights, X, support = example(1)
    total, ends = float(np.square(X).sum()), np.array([M], np.int32)
    before = weights.D.copy()
    E = torch.tensor(weights.E, requires_grad=True)
    optimizer = torch.optim.Adam([E], 1e-2, eps=1e-8)
    found = weights.residual(X, support, ends, 1 / total)
    slopes = np.where(support.values > 0, found.pulls, 0).astype(np.float32)
    starts, order = np.empty(M + 1, np.int64), np.empty(len(slopes), np.int64)
    loops.by_latent(support.latents, starts, order)
    by_D, by_E = np.empty_like(weights.D), np.empty_like(weights.E)
    seen = X - weights.bd.value
    levels = np.zeros(len(slopes), np.uint8)
    loops.gradients(
        seen, found.G, support.pair_rows, levels, support.values, slopes, starts, order, 0, M, by_D, by_E
    )
    E.grad = torch.from_numpy(by_E)
    optimizer.step()
    weights.descend(seen, found, support, slopes, ends, rate=1e-2)
    assert np.allclose(weights.E, E.detach(), atol=1e-5)
    assert np.allclose(np.linalg.norm(weights.D, axis=1), 1, atol=1e-5)
    assert np.abs(weights.D - before).max() > 1e-3


def test_the_loss_falls_and_threads_change_nothing():
    finals = []
    for threads in (1, 3):
        rng = np.random.default_rng(2)
        weights = SparseWeights(M, D_IN, rng, half=False, threads=threads)
        X = np.random.default_rng(3).standard_normal((256, D_IN)).astype(np.float32)
        total, ends, losses = float(np.square(X).sum()), np.array([M], np.int32), []
        for _ in range(60):
            seen = X - weights.bd.value
            support = selection.full(*selection.top(weights.encoder(), seen, K, threads))
            found = weights.residual(X, support, ends, 1 / total)
            losses.append(found.errors.sum() / total)
            weights.descend(
                seen,
                found,
                support,
                np.where(support.values > 0, found.pulls, 0).astype("f4"),
                ends,
                rate=1e-2,
            )
        assert losses[-1] < 0.8 * losses[0]
        finals.append(weights.D.copy())
    assert np.array_equal(*finals)


def test_aux_gradients_are_those_of_autograd():
    weights, X, _ = example(4)
    dead = np.array([1, 5, 9, 20, 33], np.int32)
    residual = np.random.default_rng(5).standard_normal(X.shape).astype(np.float32)
    seen = X - weights.bd.value
    extra, left = revive(weights, seen, residual, dead, 3, 0.5)
    E, D = (torch.tensor(a[dead], requires_grad=True) for a in (weights.E, weights.D))
    be = torch.tensor(weights.be.value[dead], requires_grad=True)
    scores = torch.tensor(seen) @ E.T + be
    least = scores.topk(3, 1).values[:, -1:]
    codes = torch.relu(torch.where(scores >= least, scores, 0))
    loss = (torch.tensor(residual) - codes @ D).square().sum()
    (0.5 * loss).backward()
    assert left == pytest.approx(loss.item(), rel=1e-4)
    for ours, theirs in ((extra.by_D, D), (extra.by_E, E), (extra.by_bias, be)):
        assert np.allclose(ours, theirs.grad, atol=1e-3)
