"""Sums of coded elements in code space are the sums of their features."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.sparse import composite as c

RNG = np.random.default_rng(0)


def scene(n=60, side=40):
    conic = np.stack([RNG.uniform(0.02, 0.2, n), RNG.uniform(-0.01, 0.01, n), RNG.uniform(0.02, 0.2, n)], 1)
    parts = (RNG.uniform(0, side, (n, 2)), conic, RNG.uniform(0.1, 1, n), RNG.random(n))
    return c.Splats(*(np.asarray(p, np.float32) for p in parts))


@settings(max_examples=20, deadline=None)
@given(
    pixels=st.integers(1, 60), elements=st.integers(1, 30), k=st.integers(1, 5), latents=st.integers(5, 40)
)
def test_composing_codes_is_composing_features(pixels, elements, k, latents):
    counts = RNG.integers(0, 6, pixels)
    blend = c.Blend(
        np.concatenate([[0], np.cumsum(counts)]), RNG.integers(0, elements, counts.sum()).astype(np.int32),
        RNG.random(counts.sum()).astype(np.float32),
    )  # fmt: skip
    index = RNG.integers(0, latents, (elements, k)).astype(np.int32)
    value = RNG.random((elements, k)).astype(np.float32)
    W = c.composite(blend, index, value, latents)
    assert np.allclose(W, c.composite_reference(blend, index, value, latents), atol=1e-5)
    C = RNG.standard_normal((latents, 17)).astype(np.float32)
    features = np.einsum("nk,nkd->nd", value, C[index])
    one = c.composite(
        c.Blend(*blend),
        np.arange(elements, dtype=np.int32)[:, None],
        np.ones((elements, 1), np.float32),
        elements,
    )
    assert np.allclose(W @ C, one @ features, atol=1e-4)


def test_a_query_in_code_space_is_the_cosine_of_the_features():
    W = RNG.random((50, 12)).astype(np.float32)
    C = RNG.standard_normal((12, 90)).astype(np.float32)
    q = RNG.standard_normal((3, 90)).astype(np.float32)
    unit = q / np.linalg.norm(q, axis=1, keepdims=True)
    found = c.relevance(W, C @ C.T, C @ unit.T)
    assert np.abs(found - c.relevance_reference(W, C, q)).max() < 1e-5


def test_pixels_see_splats_front_to_back_with_the_light_that_is_left():
    splats = scene()
    blend = c.rasterise(splats, 40, 40)
    order = np.argsort(splats.depth)
    for y, x in ((0, 0), (3, 17), (20, 20), (39, 39), (16, 15)):
        light, wanted = 1.0, []
        for i in order:
            dx, dy = x + 0.5 - splats.means[i, 0], y + 0.5 - splats.means[i, 1]
            a, b, e = splats.conics[i]
            alpha = min(0.99, splats.opacity[i] * np.exp(-(a * dx * dx + 2 * b * dx * dy + e * dy * dy) / 2))
            if alpha < 1 / 255:
                continue
            wanted.append((i, alpha * light))
            light *= 1 - alpha
            if light < 1e-4:
                break
        p = y * 40 + x
        part = slice(blend.indptr[p], blend.indptr[p + 1])
        assert blend.elements[part].tolist() == [i for i, _ in wanted]
        assert np.allclose(blend.weights[part], [w for _, w in wanted], atol=1e-4)


def test_a_picture_that_is_no_multiple_of_a_tile_is_whole():
    blend = c.rasterise(scene(), 23, 37)
    assert len(blend.indptr) == 23 * 37 + 1
    assert blend.indptr[-1] == len(blend.elements) == len(blend.weights)
