"""Pursuit: the plain algorithm with a solve at each step is what the fast one computes."""

from __future__ import annotations

import numpy as np
import pytest

from bntools.kernels.sparse.pursuit import PursuitRules, pursue


def plain(D, x, candidates, k, greedy):
    """Choose what leaves the smallest error (or, greedy, correlates most), refit all, one after the other."""
    support: list[int] = []
    for _ in range(k):
        residual = x - (np.linalg.lstsq(D[support].T, x, rcond=None)[0] @ D[support] if support else 0)
        best, score = None, 0.0
        for j in candidates:
            if j in support:
                continue
            correlation = float(residual @ D[j])
            own = D[j] - (D[support].T @ np.linalg.lstsq(D[support].T, D[j], rcond=None)[0] if support else 0)
            free = float(own @ own)
            if correlation <= 0 or free <= 1e-4:
                continue
            gain = correlation**2 if greedy else correlation**2 / free
            if gain > score:
                best, score = j, gain
        if best is None:
            break
        support.append(best)
    return support, np.linalg.lstsq(D[support].T, x, rcond=None)[0]


def example(seed=0, m=48, d=20, rows=12):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((m, d)).astype(np.float32)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    return D, rng.standard_normal((rows, d)).astype(np.float32)


def all_latents(D, rows):
    return np.tile(np.arange(len(D), dtype=np.int32), (rows, 1)), np.full(rows, len(D), np.int32)


def errors(D, X, latents, values):
    return np.square(X - np.einsum("nk,nkd->nd", values, D[latents])).sum(1)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_fast_pursuit_is_the_plain_one(greedy, held):
    D, X = example()
    candidates = all_latents(D, len(X))
    gram = D @ D.T if held else None
    latents, values = pursue(D, X, *candidates, PursuitRules(6, nonnegative=False, greedy=greedy), gram=gram)
    for row, x in enumerate(X):
        support, coefficients = plain(D.astype(float), x.astype(float), range(len(D)), 6, greedy)
        used = values[row] != 0
        assert latents[row][used].tolist() == support
        assert np.allclose(values[row][used], coefficients, atol=1e-4)


def test_more_latents_never_leave_more():
    D, X = example(1)
    candidates, before = all_latents(D, len(X)), np.inf
    for k in range(1, 12):
        left = errors(D, X, *pursue(D, X, *candidates, PursuitRules(k, nonnegative=False)))
        assert (left <= before + 1e-4).all()
        before = left


def test_rows_that_are_sparse_are_found_exactly():
    D, _ = example(2, m=64, d=40)
    rng = np.random.default_rng(3)
    codes = np.zeros((50, 64), np.float32)
    for row in codes:
        row[rng.choice(64, 3, replace=False)] = rng.uniform(0.5, 2, 3)
    X = codes @ D
    latents, values = pursue(D, X, *all_latents(D, 50), PursuitRules(3))
    back = np.zeros_like(codes)
    np.put_along_axis(back, latents.astype(np.int64), values, 1)
    assert np.abs(back - codes).max() < 1e-3


def test_nonnegative_codes_are_not_negative_and_lose_little():
    D, X = example(4)
    candidates = all_latents(D, len(X))
    signed = pursue(D, X, *candidates, PursuitRules(17, nonnegative=False))
    plus = pursue(D, X, *candidates, PursuitRules(17))
    assert (signed[1] < 0).any()
    assert (plus[1] >= 0).all()
    assert errors(D, X, *plus).sum() < 0.2 * np.square(X).sum()


def test_a_budget_stops_each_row_as_soon_as_it_is_met():
    D, X = example(5)
    candidates = all_latents(D, len(X))
    latents, values = pursue(D, X, *candidates, PursuitRules(20, budget=0.3, nonnegative=False))
    left, energy = errors(D, X, latents, values), np.square(X).sum(1)
    assert (left <= 0.3 * energy + 1e-4).all()
    last = np.argmax(np.where(values != 0, np.arange(20), -1), axis=1)
    fewer = values.copy()
    fewer[np.arange(len(X)), last] = 0
    assert (errors(D, X, latents, fewer) > 0.3 * energy).all()


def test_no_more_candidates_than_k_is_a_refit_of_these():
    D, X = example(6)
    chosen = np.argsort(-(X @ D.T), axis=1)[:, :5].astype(np.int32)
    latents, values = pursue(D, X, chosen, np.full(len(X), 5, np.int32), PursuitRules(5, nonnegative=False))
    for row, x in enumerate(X):
        used = values[row] != 0
        wanted = np.linalg.lstsq(D[latents[row][used]].T, x, rcond=None)[0]
        assert set(latents[row][used]) <= set(chosen[row])
        assert np.allclose(values[row][used], wanted, atol=1e-4)


def test_a_latent_that_stands_twice_is_taken_once():
    D, X = example(7)
    D = np.concatenate([D, D])
    latents, values = pursue(D, X, *all_latents(D, len(X)), PursuitRules(6, nonnegative=False))
    for row in range(len(X)):
        used = latents[row][values[row] != 0] % 48
        assert len(set(used)) == len(used)
