"""Random projections: what an artifact expands to, and what gradients see."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels import counter_random
from bntools.kernels.projections import projections
from bntools.kernels.projections.projections import PROJECTIONS, make
from bntools.kernels.projections.structure_aware import Said

KINDS = list(PROJECTIONS)


def matrix(p) -> np.ndarray:
    """P [D, d] column by column."""
    zero = np.zeros(p.size, np.float32)
    return np.stack([p.apply(unit, zero, np.empty_like(zero)) for unit in np.eye(p.dim, dtype=np.float32)], 1)


def reference(kind: str, size: int, dim: int, seed: int) -> np.ndarray:
    """The specification of each P, entry by entry, before its columns are normalized."""

    def words(stream, count):
        return [int(w) for w in counter_random.words(seed, stream, 0, count)]

    p = np.zeros((size, dim))
    if kind == "uniform":
        for i, w in enumerate(words(1, size)):
            p[i, ((w >> 32) * dim) >> 32] = 1 - 2 * (w & 1)
    elif kind == "cyclic":
        shifts = [((w >> 32) * dim) >> 32 for w in words(1, size // dim + 1)]
        signs = words(2, size // 64 + 1)
        for i in range(size):
            p[i, (i % dim + shifts[i // dim]) % dim] = 1 - 2 * (signs[i // 64] >> (i % 64) & 1)
    elif kind == "sparse":
        threshold = round(2**31 / size**0.5)
        for index, w in enumerate(words(1, size * dim)):
            if w >> 33 < threshold:
                p[index // dim, index % dim] = 1 - 2 * (w & 1)
    elif kind == "dense":
        p = counter_random.normals(seed, 1, 0, size * dim).reshape(size, dim).astype(np.float64)
    else:
        n = 1 << ((dim if kind == "fastfood" else size) - 1).bit_length()
        blocks = -(-size // n)
        h = np.array([[1 - 2 * (bin(i & j).count("1") % 2) for j in range(n)] for i in range(n)])
        table = counter_random.normal_table() / counter_random.NORMAL_ONE
        rows = []
        for block in range(blocks):
            w = words(1, n * blocks)[block * n : (block + 1) * n]
            order = list(range(n))
            for j in range(n - 1, 0, -1):
                k = ((w[j] >> 32) * (j + 1)) >> 32
                order[j], order[k] = order[k], order[j]
            g = np.array([table[x >> 16 & 0xFFFF] for x in w])
            b = np.array([1 - 2 * (x & 1) for x in w])
            rows.append(h @ (g[:, None] * np.eye(n)[order] @ (h * b[None])))
        p = np.concatenate(rows)[:size, :dim]
    return p


def normalized(p: np.ndarray, kind: str) -> np.ndarray:
    norms = np.sqrt((p**2).sum(0))
    if kind == "fastfood-full":  # by the root mean square over all n columns before the cut, as published
        return p
    return p / np.where(norms > 0, norms, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "dim"), [(200, 13), (97, 97), (64, 1), (130, 16)])
def test_p_is_the_matrix_its_definition_says(kind, size, dim):
    found = matrix(make(kind, size, dim, seed=4))
    wanted = normalized(reference(kind, size, dim, 4), kind)
    if kind == "fastfood-full":
        wanted = wanted * (found[0, 0] / wanted[0, 0])
    assert np.abs(found - wanted).max() < 2e-6


@pytest.mark.parametrize("kind", KINDS)
def test_columns_have_norm_one(kind):
    p = make(kind, 5000, 40, seed=2)
    norms = np.linalg.norm(matrix(p).astype(np.float64), axis=0)
    tolerance = 0.05 if kind == "fastfood-full" else 1e-5  # there only in the mean, as in the papers' program
    assert np.abs(norms - 1).max() < tolerance
    assert np.sqrt((norms**2).mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", ["uniform", "cyclic"])
@pytest.mark.parametrize("size", [1000, 1003])
def test_one_nonzero_a_row_keeps_every_length(kind, size):
    p = matrix(make(kind, size, 50, seed=1)).astype(np.float64)
    assert ((p != 0).sum(1) == 1).all()
    assert np.abs(p.T @ p - np.eye(50)).max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 700), st.data())
def test_the_adjoint_is_the_adjoint(kind, size, data):
    dim = data.draw(st.integers(1, size))
    p = make(kind, size, dim, data.draw(st.integers(0, 1 << 66)))
    random = np.random.default_rng(size)
    z, g = random.normal(size=dim).astype(np.float32), random.normal(size=size).astype(np.float32)
    forward = p.apply(z, np.zeros(size, np.float32), np.empty(size, np.float32)).astype(np.float64)
    back = p.adjoint(g).astype(np.float64)
    scale = np.linalg.norm(forward) * np.linalg.norm(g) + np.linalg.norm(z) * np.linalg.norm(back)
    assert abs(forward @ g - z @ back) < 1e-5 * scale + 1e-12


@pytest.mark.parametrize("kind", ["uniform", "cyclic"])
def test_a_gradient_may_come_in_pieces_of_any_size(kind):
    p = make(kind, 3000, 70, 5)
    g = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    sums = p.sums()
    for a, b in ((1700, 3000), (0, 13), (13, 1700)):
        p.take(g[a:b], a, sums)
    assert p.piecewise
    assert np.allclose(p.finish(sums), p.adjoint(g), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_and_threads_change_no_bit(kind, monkeypatch):
    """Beyond one CHUNK the vector is worked on in pieces; `uniform` then makes its codes on the way."""
    size, dim = 50_000, 100
    random = np.random.default_rng(0)
    z, base = random.normal(size=dim).astype(np.float32), random.normal(size=size).astype(np.float32)
    whole = make(kind, size, dim, 3)
    gradient = whole.adjoint(base)
    wanted = whole.apply(z, base, np.empty_like(base)).tobytes()
    monkeypatch.setattr(projections, "STORED", 0)
    monkeypatch.setattr(projections.Projection, "step", 4096)
    monkeypatch.setattr(projections, "CHUNK", 4096)
    parts = [make(kind, size, dim, 3, threads) for threads in (1, 3)]
    for p in parts:
        assert p.apply(z, base, np.empty_like(base)).tobytes() == wanted
        assert np.allclose(p.adjoint(base), gradient, rtol=1e-5, atol=1e-5)
    assert parts[0].adjoint(base).tobytes() == parts[1].adjoint(base).tobytes()


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("uniform", "71391cca958adf0a"),
        ("cyclic", "a3ae153dba0ff735"),
        ("fastfood", "481b367d8f21d7f6"),
        ("fastfood-full", "c00927a5bcc52346"),
        ("sparse", "063f1a4a3fe0f3c9"),
        ("dense", "20c3bfc2d4f3772d"),
    ],
)
def test_a_seed_expands_to_the_bits_it_expanded_to_when_it_was_written(kind, digest):
    """Golden: a change here makes every artifact in the world another network. Raise VERSION instead."""
    assert projections.VERSION == 1
    p = make(kind, 3000, 70, seed=12345678901234567890)
    z = (np.arange(70, dtype=np.float32) - 30) / 32
    base = (np.arange(3000, dtype=np.float32) - 1500) / 1024
    assert hashlib.sha256(p.apply(z, base, np.empty_like(base)).tobytes()).hexdigest()[:16] == digest


def test_the_output_may_be_the_base():
    for kind in KINDS:
        p = make(kind, 300, 20, 0)
        z, base = np.ones(20, np.float32), np.arange(300, dtype=np.float32)
        wanted = p.apply(z, base, np.empty_like(base))
        assert np.array_equal(p.apply(z, base, base), wanted)


@pytest.mark.parametrize(
    ("kind", "narrow", "wide"),
    [
        ("uniform", 30, 60),
        ("uniform", 30, 90),
        ("fastfood", 33, 60),
        ("fastfood-full", 30, 47),
        ("dense", 30, 30),
    ],
)
def test_a_lifted_point_is_the_same_network(kind, narrow, wide):
    small, large = (make(kind, 4000, dim, 9) for dim in (narrow, wide))
    z = np.random.default_rng(0).normal(size=narrow).astype(np.float32)
    lifted = small.lift(z, large)
    zero = np.zeros(4000, np.float32)
    wanted = small.apply(z, zero, np.empty_like(zero))
    assert np.abs(large.apply(lifted, zero, np.empty_like(zero)) - wanted).max() < 1e-6


def test_what_does_not_nest_is_not_lifted():
    z = np.ones(30, np.float32)
    for kind, wide, seed in (("uniform", 61, 9), ("uniform", 60, 8), ("cyclic", 60, 9), ("fastfood", 60, 9)):
        assert make(kind, 4000, 30, 9).lift(z, make(kind, 4000, wide, seed)) is None


@pytest.mark.parametrize(("size", "dim"), [(10, 0), (10, 11), (0, 1)])
def test_dimensions_that_cannot_be_are_refused(size, dim):
    for kind in KINDS:
        with pytest.raises(ValueError, match="cannot project"):
            make(kind, size, dim, 0)


def test_said_scales_each_layer_and_its_adjoint_is_the_derivative():
    spans = [(0, 100), (100, 130), (130, 400)]
    said = Said(make("uniform", 400, 17, 3), spans)
    assert said.dim == 20
    base = np.random.default_rng(0).normal(size=400).astype(np.float32)
    out = np.empty_like(base)
    assert np.array_equal(said.apply(np.zeros(20, np.float32), base, out), base)
    random = np.random.default_rng(1)
    z, g = random.normal(size=20).astype(np.float32), random.normal(size=400).astype(np.float32)
    zero = np.zeros(400, np.float32)
    plain = said.inner.apply(z[3:], zero, np.empty_like(zero))
    scales = np.concatenate([np.full(b - a, 1 + z[i]) for i, (a, b) in enumerate(spans)])
    assert np.allclose(said.apply(z, base, out), base + scales * plain, atol=1e-6)
    slope = said.adjoint(g).astype(np.float64)
    for k in range(20):
        step = np.zeros(20, np.float32)
        step[k] = 0.5  # bilinear: central differences are exact
        high, low = (said.apply(z + s * step, zero, np.empty_like(zero)) @ g for s in (1, -1))
        assert high - low == pytest.approx(slope[k], abs=2e-4)
