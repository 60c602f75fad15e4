"""Absolute-value decomposition: the paper's loop, the quality of the fast factors, and the sum that readers make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.kernels.stack import absolute_binary, planes


def matrix(out, inner, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(out, 1, generator=generator) + 0.1
    return (
        torch.randn(out, inner, generator=generator) * scales * (torch.rand(inner, generator=generator) + 0.1)
    )


def plain(w, rank, levels):
    """Algorithm of the paper, by the full singular value decomposition, in float64."""
    rest, found = w.double(), []
    for _ in range(levels):
        sign = torch.where(rest >= 0, 1.0, -1.0).double()
        u, s, v = torch.linalg.svd(rest.abs(), full_matrices=False)
        size = (u[:, :rank] * s[:rank]) @ v[:rank]
        rest = rest - sign * size
        found.append(rest.norm() / w.norm())
    return torch.stack(found)


def errors(w, levels):
    rest, found = w.double(), []
    for level in levels:
        size = level.left.double() @ level.right.double()
        rest = rest - torch.where(level.positive, size, -size)
        found.append(rest.norm() / w.norm())
    return torch.stack(found)


@pytest.mark.parametrize("exact", [False, True])
def test_levels_are_those_of_the_paper_s_loop(exact):
    w = matrix(40, 61)
    found = errors(w, absolute_binary.decompose(w, 3, 5, exact=exact))
    assert torch.allclose(found, plain(w, 3, 5), rtol=5e-3)


def test_the_fast_factors_lose_at_most_a_hundredth_against_the_full_decomposition():
    """For every level of a matrix beyond 256, from the same residual each time; and the levels together."""
    w = matrix(400, 300)
    rest = w.clone()
    for level, (positive, left, right) in enumerate(absolute_binary.decompose(w, 8, 6)):
        size = rest.abs()
        u, s, v = torch.linalg.svd(size, full_matrices=False)
        best = (size - (u[:, :8] * s[:8]) @ v[:8]).norm()
        fast = left.float() @ right.float()
        assert (size - fast).norm() <= 1.01 * best, level
        rest = rest - torch.where(positive, fast, -fast)
    assert bool((errors(w, absolute_binary.decompose(w, 8, 6)) <= 1.01 * plain(w, 8, 6)).all())


def test_no_full_decomposition_is_made_of_large_matrices(monkeypatch):
    seen, real = [], torch.linalg.svd

    def watch(a, *rest, **named):
        seen.append(tuple(a.shape))
        return real(a, *rest, **named)

    monkeypatch.setattr(torch.linalg, "svd", watch)
    absolute_binary.factors(matrix(600, 260).abs(), 16)
    absolute_binary.factors(matrix(600, 256).abs(), 16)
    assert seen == [(32, 260), (600, 256)]


def test_the_factors_depend_on_the_seed_alone():
    a = matrix(300, 280).abs()
    first, again, other = (absolute_binary.factors(a, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(("out", "inner", "rank"), [(1, 1, 5), (3, 13, 2), (5, 2, 4)])
def test_no_rank_is_beyond_the_shape_and_zeros_stay_zeros(out, inner, rank):
    w = matrix(out, inner)
    w[0] = 0
    for level in absolute_binary.decompose(w, rank, 2):
        assert level.left.shape == (out, min(rank, out, inner))
        assert torch.isfinite(level.left).all()
        assert torch.isfinite(level.right).all()
    if rank >= min(out, inner):
        assert errors(w if bool(w.any()) else w + 1, absolute_binary.decompose(w, rank, 1))[0] <= 1.0
    zero = torch.zeros(out, inner)
    for level in absolute_binary.decompose(zero, rank, 2):
        assert not (level.left.float() @ level.right.float()).any()


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (3, 8), (6, 21)])
def test_signs_times_sizes_are_added_where_they_are(rows, cols):
    rng = np.random.default_rng(0)
    signs = rng.choice(np.array([-1, 1], np.int8), (rows, cols))
    left, right = rng.normal(size=(rows, 3)).astype(np.float32), rng.normal(size=(3, cols)).astype(np.float32)
    values = rng.normal(size=(rows, cols)).astype(np.float32)
    wanted = values + signs * (left.astype(np.float64) @ right)
    absolute_binary.add(values, planes.pack(signs.T), left, right)
    assert np.allclose(values, wanted, rtol=1e-5, atol=1e-6)
