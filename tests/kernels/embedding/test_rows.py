"""Gathers, their gradients, Adam and heads against what torch makes of the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.core.methods.embedding import standalone
from bntools.kernels.embedding import hashing, rows
from bntools.kernels.embedding.head import Head


def test_chunks_and_their_gradients_are_those_of_an_index():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal(60).astype(np.float32)
    starts, ids = rng.integers(0, 56, (9, 3)), rng.integers(0, 9, 20).astype(np.int32)
    out = np.zeros((20, 14), np.float32)
    rows.gather(flat, starts, ids, 4, out, 2)
    index = (starts[ids][:, :, None] + np.arange(4)).reshape(20, 12)
    assert np.array_equal(out[:, 2:], flat[index])
    gradient, g = np.zeros(60, np.float32), rng.standard_normal((20, 14)).astype(np.float32)
    rows.scatter(gradient, starts, ids, 4, g, 2)
    expected = np.zeros(60)
    np.add.at(expected, index, g[:, 2:])
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_adam_with_the_prior_is_adam_with_weight_decay_on_every_row():
    rng = np.random.default_rng(1)
    start = rng.standard_normal(50).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimiser = torch.optim.Adam([theirs], 2e-3, weight_decay=0.03)
    ours, m, v = start.copy(), np.zeros(50, np.float32), np.zeros(50, np.float32)
    for step in range(1, 30):
        g = rng.standard_normal(50).astype(np.float32) * (rng.random(50) < 0.3)
        theirs.grad = torch.from_numpy(g.copy())
        optimiser.step()
        rows.adam(ours, g, m, v, 0.03, 2e-3, step)
        assert not g.any()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=2e-6)


def test_lazy_decay_is_dense_decay_of_gradient_descent():
    rng = np.random.default_rng(2)
    dense = rng.standard_normal((8, 3)).astype(np.float32)
    lazy, last, factor = dense.copy().reshape(-1), np.zeros(8, np.int64), 1 - 0.1 * 0.02
    for step in range(1, 40):
        touched = np.unique(rng.integers(0, 8, 2))
        g = rng.standard_normal((len(touched), 3)).astype(np.float32)
        dense *= np.float32(factor)
        dense[touched] -= np.float32(0.1) * g
        rows.decay_rows(lazy, last, touched, 3, factor, step)
        lazy.reshape(8, 3)[touched] -= np.float32(0.1) * g
    rows.decay_rows(lazy, last, np.arange(8), 3, factor, 39)
    np.testing.assert_allclose(lazy.reshape(8, 3), dense, rtol=1e-4)


@pytest.mark.parametrize(("kind", "widths"), [("dcn", (3, 3, 5)), ("fm", (4, 4, 4)), ("mf", (4, 4))])
def test_written_gradients_are_those_of_autograd(kind, widths):
    head = Head(kind, widths, 3)
    for p in head.parameters.values():
        p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    x0 = torch.randn(7, sum(widths), generator=torch.Generator().manual_seed(2))
    weights = torch.randn(7, generator=torch.Generator().manual_seed(3))
    leaf = x0.clone().requires_grad_()
    copy = Head(kind, widths, parameters={n: p.clone().requires_grad_() for n, p in head.parameters.items()})
    expected = torch.autograd.grad(_plain(copy, leaf) @ weights, [leaf, *copy.parameters.values()])
    out = head.forward(x0)
    torch.testing.assert_close(out, _plain(head, x0))
    torch.testing.assert_close(head.backward(weights), expected[0], atol=1e-5, rtol=1e-4)
    for name, gradient in zip(copy.parameters, expected[1:], strict=True):
        torch.testing.assert_close(head.gradients[name], gradient, atol=1e-5, rtol=1e-4)


def _plain(head, x0):
    """The heads' formulas, pair by pair."""
    p = head.parameters
    if head.kind == "dcn":
        x1 = x0 * (x0 @ p["U"] @ p["V"] + p["b"]) + x0
        h = torch.relu(torch.relu(x0 @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"])
        return x1 @ p["w_cross"] + h @ p["w_deep"] + p["bias"]
    fields = x0.split(list(head.widths), 1)
    total = sum(f[:, -1] for f in fields) + p["bias"]
    for i, a in enumerate(fields):
        for b in fields[:i]:
            total = total + (a[:, :-1] * b[:, :-1]).sum(1)
    return total


def test_mf_refuses_three_fields():
    with pytest.raises(ValueError, match="two fields"):
        Head("mf", (4, 4, 4))


def test_hashes_fall_evenly_and_lookups_are_independent():
    words = hashing.digests(
        str(i) for i in range(20_000)
    )  # sequential ids: their remainders would be no hash
    first, second = (hashing.buckets(words, 50, 7, 0, j) for j in (0, 1))
    for where in (first, second):
        counts = np.bincount(where, minlength=50)
        assert np.square(counts - 400).sum() / 400 < 100  # chi squared of 49: 6 standard deviations over
    joint = np.bincount(first * 50 + second, minlength=2500)
    assert np.square(joint - 8).sum() / 8 < 2499 + 6 * np.sqrt(2 * 2499)


def test_a_hash_is_the_same_without_numpy():
    texts = ["", "a", "Ärger", "17"]
    ours = hashing.buckets(hashing.digests(texts), 1009, 5, 2, 3)
    assert ours.tolist() == [standalone.bucket(text, 1009, 5, 2, 3) for text in texts]
