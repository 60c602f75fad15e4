"""Levels on unbounded grids: what is coded is what is read, and how good it is for its bits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bntools.core.errors import BnError
from bntools.core.importance import metric
from bntools.core.importance.fisher_sweep import Sensitivity
from bntools.core.importance.metric import Metric
from bntools.core.packing import entropy
from bntools.core.packing.entropy import Counter, Decoder
from bntools.tools.quantize.entropy import levels


def identity(rows: int, cols: int) -> Metric:
    ones, none = np.ones(max(rows, cols), np.float32), np.zeros((0, 0), np.float32)
    return Metric(
        np.arange(cols), np.eye(cols, dtype=np.float32), none, ones[:rows], ones[:rows], ones[:cols], ones[:rows],
        0.0,
    )  # fmt: skip


def correlated(rows: int, cols: int, both: bool) -> Metric:
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = (
        (x.T @ x / len(x)) + 0.1 * torch.eye(n)
        for n in (cols, rows)
        for x in [torch.randn(3 * n, n, generator=generator) @ torch.randn(n, n, generator=generator)]
    )
    rows_ = outputs.diagonal().clone()
    found = Sensitivity(rows_, inputs, outputs if both else None)
    return metric.of_linear(found)


def weights(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def rate(found: levels.Quantized, is_trellis: bool) -> float:
    """Bits a weight by tables of this matrix alone."""
    counter = Counter(is_trellis)
    counter.add(found.coded)
    return counter.bits() / found.values.numel()


def decibels(w: torch.Tensor, found: levels.Quantized) -> float:
    return 10 * math.log10(float(w.square().mean() / (w - found.values).square().mean()))


def gaussian(alpha: float, is_trellis: bool) -> tuple[float, float]:
    """(bits, dB) of a Gaussian source coded under the identity metric, side information and shrink counted in."""
    w = weights(1024, 1024)
    found = levels.quantize(w, identity(1024, 1024), alpha, is_trellis)
    return rate(found, is_trellis), decibels(w, found)


@pytest.mark.slow
def test_a_gaussian_at_2_94_bits_keeps_16_9_decibels():
    """17.70 dB is the limit of any code at this rate."""
    bits, found = gaussian(0.545, True)
    at = found + 6.02 * (2.94 - bits)
    assert abs(bits - 2.94) < 0.1
    assert at >= 16.9


@pytest.mark.slow
def test_the_trellis_beats_plain_rounding_at_equal_bits():
    trellis, plain = gaussian(0.5, True), gaussian(0.5, False)
    gain = trellis[1] - plain[1] - 6.02 * (trellis[0] - plain[0])
    assert gain > 0.6


@pytest.mark.parametrize("is_trellis", [False, True])
@pytest.mark.parametrize("both", [False, True])
def test_the_values_promised_are_those_of_the_file(is_trellis, both):
    w = weights(40, 70)
    found = levels.quantize(w, correlated(40, 70, both), 0.2, is_trellis)
    counter = Counter(is_trellis)
    counter.add(found.coded)
    tables = counter.tables(levels.shrinks(is_trellis))
    spec = entropy.spec((40, 70), "F32", False, levels.OCTAVE)
    stream = entropy.encode(found.coded, spec, tables)
    read = Decoder(entropy.dump_tables(tables)).dense("w", spec, stream, torch.float32)
    assert torch.equal(read, found.values)


def test_one_column_under_no_metric_is_plain_rounding(monkeypatch):
    monkeypatch.setattr(levels, "_SHRINK", 0)
    w = weights(300, 1)
    found = levels.quantize(w, identity(300, 1), 0.25, False)
    assert np.array_equal(found.coded.levels[0], np.rint(w[:, 0].numpy() / 0.25))


@pytest.mark.parametrize("is_trellis", [False, True])
def test_the_error_vanishes_with_the_step(is_trellis):
    w, found = weights(50, 60), correlated(50, 60, True)
    first, second, third = (
        float((w - levels.quantize(w, found, alpha, is_trellis).values).abs().max())
        for alpha in (0.4, 0.1, 0.025)
    )
    assert first > 2.5 * second > 6 * third


@pytest.mark.parametrize("is_trellis", [False, True])
def test_the_loss_predicted_is_the_loss_of_the_values(is_trellis):
    """tr(A E B E^T) / 2 with the diagonal of A, B as damped."""
    w, found = weights(60, 50), correlated(60, 50, False)
    got = levels.quantize(w, found, 0.3, is_trellis)
    order = torch.from_numpy(found.order)
    whitened = torch.linalg.solve_triangular(
        torch.from_numpy(found.factor), (w - got.values)[:, order], upper=True, left=False
    )
    loss = float((whitened.square().sum(1) * torch.from_numpy(found.rows)).sum() / 2)
    assert got.loss == pytest.approx(loss, rel=1e-3)


def test_scaling_one_input_by_a_power_of_two_leaves_its_levels():
    """Its step follows, so an outlier input costs the others nothing."""
    w = weights(64, 40)
    plain = identity(64, 40)
    col = plain.col.copy()
    col[7] = 16
    scaled = w.clone()
    scaled[:, 7] *= 16
    one = levels.quantize(w, plain, 0.25, True)
    other = levels.quantize(scaled, replace(plain, col=col), 0.25, True)
    assert np.array_equal(one.coded.levels, other.coded.levels)
    assert torch.equal(one.values[:, :7], other.values[:, :7])


def test_shrinks_pull_small_classes_in_and_leave_large_ones():
    for is_trellis in (False, True):
        found = levels.shrinks(is_trellis)
        assert (np.diff(found) >= 0).all()
        assert 0 < found[0] < 0.1
        assert found[-1] > 0.999


@pytest.mark.parametrize("is_trellis", [False, True])
def test_steps_too_fine_for_16_bits_are_made_coarser_and_levels_never_clipped(is_trellis):
    found = levels.quantize(weights(16, 8), identity(16, 8), 1e-6, is_trellis)
    largest = np.abs(found.coded.levels.astype(int)).max(1)
    assert largest.max() < 15_000
    assert largest.min() > 3_000 * (1 + is_trellis) / 2
    assert decibels(weights(16, 8), found) > 70


def test_feedback_that_outgrows_16_bits_is_refused():
    """Only a metric that moves targets by more than they are can do it."""
    wild = identity(4, 8)
    factor = np.eye(8, dtype=np.float32) + 1e5 * np.triu(np.ones((8, 8), np.float32), 1)
    with pytest.raises(BnError, match="levels exceed"):
        levels.quantize(weights(4, 8) * 1e3, replace(wild, factor=factor), 1e-3, True)
