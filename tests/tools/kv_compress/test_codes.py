"""The metric and the two codes of a cache's rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.core.errors import BnError
from bntools.core.methods.kv import baselines, token_weights
from bntools.core.methods.kv.metric import CacheMoments, QueryMetric
from bntools.core.methods.kv.prefix import ExactPrefix
from bntools.kernels.attention import packed_rows
from bntools.tools.kv_compress import allocate

HEADS, SHARED, WIDTH, TOKENS = 2, 3, 16, 400


@pytest.fixture(scope="module")
def layer():
    """Queries, keys and values [1, heads, tokens, d] with covariances of their own, and W_o."""
    generator = torch.Generator().manual_seed(0)

    def rows(heads: int, offset: float) -> torch.Tensor:
        mix = torch.randn(heads, WIDTH, WIDTH, generator=generator) / 4
        x = torch.randn(1, heads, TOKENS, WIDTH, generator=generator) @ mix
        return x + offset * torch.randn(heads, 1, WIDTH, generator=generator)

    q, k, v = rows(HEADS * SHARED, 0), rows(HEADS, 2), rows(HEADS, 1)
    return q, k, v, torch.randn(40, HEADS * SHARED * WIDTH, generator=generator) / 10


@pytest.fixture(scope="module")
def metric(layer):
    q, k, v, projection = layer
    moments = CacheMoments.empty(HEADS, WIDTH)
    moments.add(q, k, v, WIDTH**-0.5)
    return QueryMetric.of(moments, projection)


@pytest.fixture(scope="module")
def sample(layer, metric):
    _, k, v, _ = layer
    y = torch.cat([metric.to(0, k[0]), metric.to(1, v[0])], -1).contiguous().numpy()
    classes = np.random.default_rng(0).integers(-2, 3, (HEADS, TOKENS)).astype(np.int8)
    return allocate.CacheSample([metric], [y], [classes], np.array([[0.01, 0.002]]), 0.25)


@pytest.fixture(scope="module")
def entropy(sample):
    tables, _ = allocate.fit_tables(sample, 0.05)
    return allocate.entropy_rows(sample, 0.05, tables)[0]


def test_the_metric_is_undone(layer, metric):
    for which in (0, 1):
        x = layer[1 + which][0]
        assert torch.allclose(metric.back(which, metric.to(which, x)), x, atol=1e-3)


def test_a_squared_step_of_a_key_is_the_squared_error_of_a_logit(layer, metric):
    """Within what the floor of 3 % adds to every direction, and the average over the queries of the fit."""
    q, k, _, _ = layer
    error = 0.1 * torch.randn(HEADS, 4000, WIDTH, generator=torch.Generator().manual_seed(1))
    y = metric.to(0, k[0, :, :1] + error) - metric.to(0, k[0, :, :1])
    groups = q[0].reshape(HEADS, SHARED, TOKENS, WIDTH)
    logits = torch.einsum("hstd,hnd->hstn", groups, error) * WIDTH**-0.5
    expected = (logits**2).mean((1, 2, 3))
    floor = 0.03 * (groups**2).sum(-1).mean((1, 2)) / WIDTH**2 * (error**2).sum(-1).mean(1)
    assert torch.allclose((y**2).sum(-1).mean(1), expected + floor, rtol=0.02)


def test_steps_weigh_the_same_in_every_layer(sample):
    two = allocate.CacheSample(
        list(sample.metrics) * 2, list(sample.y) * 2, list(sample.classes) * 2,
        np.array([[0.01, 0.5], [3.0, 1e-6]]), 0.25,
    )  # fmt: skip
    rows = allocate.entropy_rows(two, 0.1, allocate.LevelTables.plain())
    loss = [s * step**2 for coder, pair in zip(rows, two.sensitivity, strict=True)
            for step, s in zip(coder.steps, pair, strict=True)]  # fmt: skip
    assert np.allclose(loss, 0.01, rtol=1e-6)


def test_the_entropy_code_gives_back_what_was_rounded_and_takes_the_bits_it_says(layer, sample, entropy):
    _, k, v, _ = layer
    classes = sample.classes[0]
    blocks = entropy.encode(k[0], v[0], classes)
    back, rounded = entropy.decode(blocks), entropy.rounded(k[0], v[0], classes)
    assert all(torch.equal(one, other) for one, other in zip(back, rounded, strict=True))
    size = 8 * sum(len(block.data) for block in blocks)
    assert size == pytest.approx(entropy.measure(sample.y[0], classes), rel=0.01)


def test_a_coarser_class_takes_fewer_bits_and_costs_more(layer, entropy):
    _, k, v, _ = layer
    sizes, errors = [], []
    for e in (-3, 0, 4):
        classes = np.full((HEADS, TOKENS), e, np.int8)
        blocks = entropy.encode(k[0], v[0], classes)
        sizes.append(sum(len(block.data) for block in blocks))
        errors.append(float((entropy.decode(blocks)[0] - k[0]).square().mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_a_damaged_block_is_refused(layer, sample, entropy):
    _, k, v, _ = layer
    blocks = entropy.encode(k[0, :, :32], v[0, :, :32], sample.classes[0][:, :32])
    data = bytearray(blocks[0].data)
    data[-1] ^= 255
    broken = [type(blocks[0])(bytes(data), 32, 32)]
    with pytest.raises(BnError) as error:
        entropy.decode(broken)
    assert error.value.code == 3


def test_widths_are_the_best_of_all(sample):
    """By brute force over all allocations of four coordinates."""
    weighted, errors = np.array([[5.0, 1.0, 0.2, 0.01]]), np.array([1.0, 0.36, 0.12, 0.035])
    chosen = allocate.choose_widths(weighted, errors, 1.5)
    total = int(chosen.sum())
    every = np.stack(np.meshgrid(*[range(4)] * 4)).reshape(4, -1).T
    allowed = every[every.sum(1) <= total]
    best = min((weighted[0] * errors[row]).sum() for row in allowed)
    assert (weighted[0] * errors[chosen[0]]).sum() == pytest.approx(best)


@pytest.mark.parametrize("exact", [0.0, 0.05])
def test_the_fixed_code_comes_back_within_its_cells_and_takes_the_bits_it_says(layer, sample, exact):
    _, k, v, _ = layer
    tensors, facts = allocate.fixed_plan(sample, 3.0, exact, 0)
    levels = tuple(tensors["levels"][bits, : 1 << bits].numpy() for bits in range(7))
    coder = allocate.fixed_code.FixedRows(
        sample.metrics[0], tensors["widths"][0].numpy(), tensors["scale"][0].float().numpy(), levels,
        tensors["limit"][0].numpy(), (0.01, 0.002),
    )  # fmt: skip
    blocks = coder.encode(k[0], v[0], np.zeros((HEADS, TOKENS), np.int8))
    back = coder.decode(blocks)
    y = coder.coordinates(*back)
    codes = coder.codes(coder.coordinates(k[0], v[0]))[0]
    marks = coder.rows(blocks)[1]
    expected = coder.values[np.arange(HEADS)[:, None, None], np.arange(2 * WIDTH)[None, None], codes]
    assert np.allclose(y[~marks], expected[~marks], atol=2e-2)
    assert marks.mean() == pytest.approx(exact, abs=0.02)
    assert torch.allclose(back[0][torch.from_numpy(marks)], k[0][torch.from_numpy(marks)], atol=1e-2)
    bits = 8 * sum(len(block.data) for block in blocks) / sample.values
    assert bits == pytest.approx(facts["coded_bits"], rel=0.02)
    assert bits == pytest.approx(3.0, abs=8 / (2 * WIDTH))  # rows are whole bytes
    rows = [packed_rows.row_bytes(row) for row in coder.widths]
    assert len(blocks[0].data) >= 32 * sum(rows)


def test_received_attention_is_the_column_mean_of_the_softmax():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, h, 20, 8, generator=generator) for h in (4, 2))
    logits = q.reshape(1, 2, 2, 20, 8) @ k[:, :, None].transpose(-1, -2) / 8**0.5
    seen = torch.ones(20, 20, dtype=torch.bool).tril()
    chances = logits.masked_fill(~seen, float("-inf")).softmax(-1)
    expected = chances.sum((2, 3)) / (2 * seen.sum(0))
    assert torch.allclose(token_weights.received(q, k, 8**-0.5), expected, atol=1e-6)


def test_classes_are_finer_for_tokens_that_are_looked_at():
    weight = torch.full((1, 50), 0.01)
    weight[0, 25] = 0.64
    classes = token_weights.step_classes(weight, 0.5)
    assert classes[0, 25] == -3
    assert classes[0, 0] == 0
    assert not token_weights.step_classes(weight, 0).any()


def prefix_of(layer) -> ExactPrefix:
    q, k, v, _ = layer
    weight = {0: token_weights.received(q, k, WIDTH**-0.5)[0]}
    return ExactPrefix(torch.zeros(TOKENS), {0: (k[0].half(), v[0].half())}, weight, weight, [None])


def test_uniform_attention_makes_a_share_of_tau_important_and_one_hot_attention_one():
    n = 200
    flat = torch.full((n,), 1 / n)
    assert int(baselines.important(flat, flat, 0.975).sum()) == 195
    hot = torch.zeros(n)
    hot[17] = 1
    assert baselines.important(hot, hot, 0.975).nonzero().tolist() == [[17]]


def test_every_baseline_takes_what_it_says_and_keeps_what_it_may(layer):
    prefix = prefix_of(layer)
    bits = {name: baselines.simulate(name, prefix, {}).bits for name in baselines.SIMULATED}
    assert bits["rotated"] == pytest.approx(3 + 16 / WIDTH)
    assert bits["per-token"] == pytest.approx(4 + 32 / WIDTH)
    for name in ("h2o", "snapkv", "streaming"):
        cache = baselines.simulate(name, prefix, {"budget": 0.25})
        assert cache.bits == pytest.approx(4, abs=0.1)
        assert cache.keep is not None
        assert cache.keep[0].float().mean() == pytest.approx(0.25, abs=0.01)


def test_pyramid_budgets_fall_and_keep_their_mean():
    budgets = baselines.pyramid_budgets(500, 30)
    assert budgets == sorted(budgets, reverse=True)
    assert sum(budgets) == pytest.approx(500 * 30, abs=30)


def test_a_group_of_an_asymmetric_code_is_off_by_half_a_step_at_most():
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    back = baselines.asymmetric(x, 4, 32)
    groups = x.reshape(5, 2, 32)
    step = (groups.amax(-1) - groups.amin(-1)) / 15
    assert ((back - x).reshape(5, 2, 32).abs().amax(-1) <= 0.5 * step + 5e-3).all()
