"""Dependent quantization: its gain, its optimum, and the decoder's side of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import slow_entropy

from bntools.core.importance import metric
from bntools.kernels.entropy import dependent_trellis

QUICK = settings(max_examples=30, deadline=None)
NONE = np.zeros((0, 0), np.float32)


def quantize(targets, is_trellis=True, *, step=1.0, factor=None, weight=None, feedback=NONE, block=None):
    """Levels [cols, rows] and whitened errors of a copy of the targets."""
    work = np.array(targets, np.float32)
    cols, rows = work.shape
    levels = np.empty(work.shape, np.int16)
    ones = np.ones(max(rows, cols), np.float32)
    factor = np.eye(cols, dtype=np.float32) if factor is None else factor
    weight = ones[:rows] if weight is None else weight
    dependent_trellis.columns(
        work, factor, ones[:rows] * np.float32(step), ones[:cols], np.ones_like(work), weight, feedback,
        is_trellis, levels, block,
    )  # fmt: skip
    return levels, work


def uniform_gain(block: int | None) -> float:
    """dB that the trellis gains on plain rounding at the rate of one of its sets, on a uniform source."""
    source = np.random.default_rng(0).uniform(-1000, 1000, (96, 4096))
    errors = np.concatenate([quantize(part, block=block)[1] for part in np.split(source, 6)])
    return 10 * np.log10(2**2 / 12 / np.mean(errors.astype(float) ** 2))


def test_eight_states_gain_a_decibel_and_a_tenth_on_a_uniform_source():
    """1.10 is what 8 states are known for (Marcellin & Fischer 1990); the standard error here is 0.01."""
    assert uniform_gain(None) == pytest.approx(1.10, abs=0.03)


def machine_gain(following, sets) -> float:
    """The same of any machine, by Viterbi's recursion over many columns at once; the source is far from zero."""
    source = np.random.default_rng(1).uniform(1000, 2000, (512, 1024))
    offset = {(0, 0): 0, (0, 1): 2, (1, 0): 3, (1, 1): 1}  # of the multiples of 4 that a set has for a parity
    costs = np.full((len(following), len(source)), np.inf)
    costs[0] = 0
    for x in source.T:
        new = np.full_like(costs, np.inf)
        for state, entries in enumerate(following):
            for parity, entry in enumerate(entries):
                error = (x - offset[sets[state], parity] + 2) % 4 - 2
                new[entry] = np.minimum(new[entry], costs[state] + error**2)
        costs = new
    return 10 * np.log10(2**2 / 12 / (costs.min(0).mean() / source.shape[1]))


def test_four_states_gain_a_decibel_and_the_recursion_finds_what_the_search_does():
    """0.99 and 1.10 are the known gains of 4 and 8 states."""
    four = [[0, 2], [2, 0], [1, 3], [3, 1]], [0, 0, 1, 1]
    assert machine_gain(*four) == pytest.approx(1.00, abs=0.03)
    eight = machine_gain(dependent_trellis.NEXT.tolist(), dependent_trellis.SETS.tolist())
    assert eight == pytest.approx(uniform_gain(None), abs=0.03)


def test_blocks_of_64_rows_lose_a_tenth_of_a_decibel():
    assert dependent_trellis.BLOCK == 64
    assert 0.95 < uniform_gain(64) < 1.03


@QUICK
@given(levels=st.lists(st.integers(-32767, 32767), min_size=1, max_size=80))
def test_the_decoder_reads_the_half_steps_of_the_slow_machine(levels):
    column = np.array([levels], np.int16)
    assert dependent_trellis.multiples(column, True)[0].tolist() == slow_entropy.multiples(levels)
    assert dependent_trellis.multiples(column, False)[0].tolist() == levels


@QUICK
@given(
    seed=st.integers(0, 10**6), rows=st.integers(1, 300), fed=st.booleans(), block=st.sampled_from([None, 5])
)
def test_the_error_returned_is_that_of_what_the_decoder_reads(seed, rows, fed, block):
    rng = np.random.default_rng(seed)
    targets = rng.normal(0, rng.choice([0.1, 3, 1000]), (3, rows))
    feedback = np.triu(rng.normal(0, 0.1, (rows, rows)), 1).astype(np.float32) if fed else NONE
    levels, errors = quantize(targets, feedback=feedback, block=block)
    assert np.allclose(targets - dependent_trellis.multiples(levels, True), errors, atol=2e-3)


def sequences(targets: np.ndarray) -> np.ndarray:
    """Errors [sequences, rows] of every sequence of levels within six half steps of the targets."""
    near = [range(round(target / 2) - 3, round(target / 2) + 4) for target in targets.tolist()]
    levels = np.array(list(itertools.product(*near)), np.int16)
    return targets - dependent_trellis.multiples(levels, True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 4), scale=st.sampled_from([0.7, 2.0, 50.0]))
def test_no_sequence_of_levels_beats_the_search(seed, rows, scale):
    rng = np.random.default_rng(seed)
    targets = rng.normal(0, scale, rows).astype(np.float32)
    weight = rng.uniform(0.5, 2, rows).astype(np.float32)
    _, errors = quantize(targets[None], weight=weight)
    best = ((sequences(targets) * weight) ** 2).sum(1).min()
    assert ((errors[0] * weight) ** 2).sum() == pytest.approx(best, rel=1e-4, abs=1e-7)


def output_metric(rows: int, seed: int):
    """A metric A [rows, rows] of correlated rows, its feedback and its weights."""
    rng = np.random.default_rng(seed)
    root = rng.normal(0, 1, (rows, 2 * rows)) @ np.diag(2.0 ** -(np.arange(2 * rows) / 4))
    a = (root @ root.T + 0.05 * np.eye(rows)).astype(np.float32)
    import torch

    factor = metric.damped_factor(torch.from_numpy(a), 0.0)[0].numpy()
    return a, *dependent_trellis.row_feedback(factor)


@pytest.mark.parametrize("is_trellis", [False, True])
def test_feedback_down_a_column_lowers_the_error_in_the_metric_of_the_outputs(is_trellis):
    a, feedback, weight = output_metric(24, 0)
    targets = np.random.default_rng(1).normal(0, 4, (60, 24))
    with_feedback, without = (
        quantize(targets, is_trellis, weight=weight, feedback=one)[1] for one in (feedback, NONE)
    )
    loss, plain = (float(np.einsum("ni,ij,nj", e, a, e)) for e in (with_feedback, without))
    assert loss < 0.5 * plain


def test_the_weighted_squares_that_the_search_adds_up_are_the_error_in_the_metric():
    """sum_i (w_i (t_i + moves - v_i))^2 = e^T A e: what makes the sum over a path a cost."""
    a, feedback, weight = output_metric(12, 3)
    e = np.random.default_rng(0).normal(0, 1, 12)
    moved = np.zeros(12)
    cost = 0.0
    for i in range(12):
        # the error of a moved target: its own, less what the errors above were to make up for
        x = e[i] - moved[i]
        cost += float(weight[i] * x) ** 2
        moved += feedback[i] * x
    assert cost == pytest.approx(float(e @ a @ e), rel=1e-3)


def test_with_feedback_the_search_stays_near_the_best_sequence():
    """Each state keeps one past, so with feedback the search is a heuristic: nothing bounds it, and on 12 columns of
    6 rows it is at most a tenth off the best of all sequences together, never below it."""
    a, feedback, weight = output_metric(6, 5)
    rng = np.random.default_rng(2)
    found, best = [], []
    for _ in range(12):
        targets = rng.normal(0, 3, 6).astype(np.float32)
        _, errors = quantize(targets[None], weight=weight, feedback=feedback)
        found.append(float(errors[0] @ a @ errors[0]))
        every = sequences(targets)
        best.append(float(((every @ a) * every).sum(1).min()))
    assert all(f >= 0.999 * b for f, b in zip(found, best, strict=True))
    assert sum(found) < 1.1 * sum(best)


def test_a_column_alone_is_rounded_to_the_nearest_step():
    targets = np.random.default_rng(0).normal(0, 20, (1, 500)).astype(np.float32)
    levels, _ = quantize(targets, False, step=0.75)
    assert np.array_equal(levels, np.rint(targets / np.float32(0.75)))


@pytest.mark.parametrize("is_trellis", [False, True])
def test_feedback_between_columns_is_that_of_gptq(is_trellis):
    """Errors over the pivot, fed to later columns: after the run the identity T - values = E U holds exactly."""
    rng = np.random.default_rng(4)
    factor = (np.triu(rng.normal(0, 0.3, (6, 6)), 1) + np.diag(rng.uniform(0.5, 2, 6))).astype(np.float32)
    targets = rng.normal(0, 5, (6, 40))
    levels, whitened = quantize(targets, is_trellis, factor=factor)
    assert np.allclose(
        targets - dependent_trellis.multiples(levels, is_trellis), factor.T @ whitened, atol=1e-4
    )


@pytest.mark.parametrize("is_trellis", [False, True])
def test_the_error_vanishes_with_the_step(is_trellis):
    targets = np.random.default_rng(0).normal(0, 1, (2, 200)).clip(-4, 4)
    worst = [abs(quantize(targets, is_trellis, step=step)[1]).max() for step in (0.1, 0.01, 0.001)]
    assert worst[0] > 5 * worst[1] > 25 * worst[2]
    assert worst[2] < 0.003


def test_targets_beyond_any_level_still_decode():
    targets = np.array([[1e9, -1e9, 3e38, 0.0, 5.0, -1e20] * 20])
    levels, _ = quantize(targets)
    assert abs(levels.astype(int)).max() <= 32767
    assert abs(quantize(targets, False)[0].astype(int)).max() == 32767
