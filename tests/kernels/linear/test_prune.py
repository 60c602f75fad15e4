"""Exact numbers of weights, and that pruning with refits loses less than truncation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.linear.design import FactoredDesign
from bntools.kernels.linear.fit import Penalty, Problem, fit, null
from bntools.kernels.linear.prune import backward, keep_largest, refit, restrict, saliency
from bntools.kernels.linear.softmax import Labels, loss


@pytest.fixture(scope="module")
def dense():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 20)).astype(np.float32)
    y = (x[:, :4] + 0.5 * draw.normal(size=(400, 4))).argmax(1)
    design = FactoredDesign(x, draw.normal(size=(40, 20)).astype(np.float32))
    setting = Problem(design, design.gram(), Labels.tally(y, 4))
    return setting, fit(setting, Penalty(0.002, 0.0002), null(setting), tolerance=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(0, 30), st.booleans())
def test_the_largest_are_those_a_sort_would_take(seed, count, per_class):
    values = np.random.default_rng(seed).integers(0, 5, size=(3, 8)).astype(np.float32)
    mask = keep_largest(values, count, per_class=per_class)
    assert mask.sum() <= count
    assert not mask[values == 0].any()
    if not per_class and mask.any() and (values[~mask] > 0).any():
        assert values[mask].min() >= values[~mask].max()


@pytest.mark.parametrize("per_class", [True, False])
def test_every_budget_is_met_exactly_and_the_loss_grows_as_it_shrinks(dense, per_class):
    setting, start = dense
    values = []
    for budget, model in backward(setting, start, [4, 8, 20, 40], 0.01, per_class=per_class):
        assert (model.weight != 0).sum() == budget
        if per_class:
            assert (model.weight != 0).sum(1).tolist() == [budget // 4] * 4
        np.testing.assert_allclose(
            model.scores, setting.design.scores(model.weight) + model.bias[:, None], atol=1e-3
        )
        values.append(model.value)
    assert values == sorted(values)


def test_pruning_with_refits_beats_truncating_the_path(dense):
    setting, start = dense
    ((_, pruned),) = backward(setting, start, [8], 0.01)
    cut = restrict(setting, start, keep_largest(np.abs(start.weight), 8))
    assert loss(pruned.scores, setting.labels) < loss(cut.scores, setting.labels) - 0.02


def test_saliency_is_what_removing_a_weight_costs(dense):
    setting, start = dense
    mask = keep_largest(np.abs(start.weight), 24)
    model = refit(setting, start, mask, 0.01, 1e-6)
    expected, costs = saliency(setting, model.weight, model.scores, 0.01), []
    cells = np.argwhere(mask)[::3]
    for c, k in cells:
        less = mask.copy()
        less[c, k] = False
        costs.append(refit(setting, model, less, 0.01, 1e-6).value - model.value)
    guess = [float(expected[c, k]) for c, k in cells]
    assert np.corrcoef(guess, costs)[0, 1] > 0.8
    assert min(costs) > -1e-5
