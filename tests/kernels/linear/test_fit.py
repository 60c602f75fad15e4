"""The sparse softmax head against the definition: gradients by loops, optimality conditions, a slow solver."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.kernels.linear import softmax
from bntools.kernels.linear.design import DenseDesign, FactoredDesign
from bntools.kernels.linear.fit import ConceptSupport, Penalty, Problem, fit, null
from bntools.kernels.linear.softmax import Labels
from bntools.kernels.linear.support import SupportDesign, narrowed


def data(seed: int, rows: int = 120, width: int = 6, concepts: int = 9, classes: int = 3):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, width)).astype(np.float32) + 2
    vectors = draw.normal(size=(concepts, width)).astype(np.float32)
    y = ((x - 2) @ draw.normal(size=(width, classes)) + draw.normal(size=(rows, classes))).argmax(1)
    return x, vectors, Labels.tally(y, classes)


def problem(design, labels: Labels) -> Problem:
    return Problem(design, design.gram(), labels)


def objective(
    design: np.ndarray, labels: Labels, penalty: Penalty, weight: np.ndarray, bias: np.ndarray
) -> float:
    """Mean cross-entropy and penalty, as the definition says."""
    total = 0.0
    for row, label in zip(design.astype(np.float64), labels.of, strict=True):
        z = [float(w @ row + b) for w, b in zip(weight.astype(np.float64), bias, strict=True)]
        total += np.log(sum(np.exp(v - max(z)) for v in z)) + max(z) - z[label]
    size = np.abs(weight).sum() * penalty.l1 + (weight.astype(np.float64) ** 2).sum() * penalty.l2 / 2
    return total / len(labels.of) + float(size)


def standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / values.std(0)


def slow_fit(design: np.ndarray, labels: Labels, penalty: Penalty) -> tuple[np.ndarray, np.ndarray]:
    """Proximal gradients, twenty thousand of them."""
    classes = len(labels.share)
    weight, bias = np.zeros((classes, design.shape[1])), np.zeros(classes)
    step = 1 / (0.5 * np.linalg.eigvalsh(design.T @ design / len(design))[-1] + penalty.l2)
    onehot = np.eye(classes)[labels.of]
    for _ in range(20000):
        z = design @ weight.T + bias
        p = np.exp(z - z.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - onehot) / len(design)
        moved = weight - step * (error.T @ design + penalty.l2 * weight)
        weight = np.sign(moved) * np.maximum(np.abs(moved) - step * penalty.l1, 0)
        bias = bias - error.sum(0)
    return weight, bias


def test_scores_as_factors_are_the_scores_formed():
    x, vectors, _ = data(0)
    factored, dense = FactoredDesign(x, vectors), DenseDesign(x @ vectors.T)
    weight = np.random.default_rng(1).normal(size=(3, 9)).astype(np.float32)
    residual = np.random.default_rng(2).normal(size=(3, 120)).astype(np.float32)
    np.testing.assert_allclose(factored.scores(weight), dense.scores(weight), atol=2e-4)
    np.testing.assert_allclose(factored.gradient(residual), dense.gradient(residual), atol=1e-5)
    np.testing.assert_allclose(factored.gram(), dense.gram(), atol=1e-5)
    np.testing.assert_allclose(dense.gram().diagonal(), 1, atol=1e-4)
    rows = np.arange(0, 120, 3)
    np.testing.assert_allclose(factored.at(rows).scores(weight), factored.scores(weight)[:, rows], atol=1e-5)


def test_a_constant_concept_is_switched_off():
    x, vectors, labels = data(0)
    vectors[2] = 0
    design = FactoredDesign(x, vectors)
    assert design.standard.inverse[2] == 0
    result = fit(problem(design, labels), Penalty(0.001, 0.001), null(problem(design, labels)))
    assert np.isfinite(result.value)
    assert not result.weight[:, 2].any()


@pytest.mark.parametrize("penalty", [Penalty(0.02, 0.001), Penalty(0.1, 0.01), Penalty(0.005, 0.1)])
def test_the_fit_is_that_of_a_slow_solver(penalty):
    x, vectors, labels = data(3)
    values = x @ vectors.T
    setting = problem(FactoredDesign(x, vectors), labels)
    result = fit(setting, penalty, null(setting), tolerance=1e-5)
    design = standard(values.astype(np.float64))
    weight, bias = slow_fit(design, labels, penalty)
    best = objective(design, labels, penalty, weight, bias)
    assert objective(design, labels, penalty, result.weight, result.bias) == pytest.approx(best, rel=3e-5)
    assert result.value == pytest.approx(best, rel=3e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.3, 0.1, 0.03]), st.integers(2, 5))
def test_the_gap_bounds_the_distance_from_the_optimum(seed, share, classes):
    x, vectors, labels = data(seed, classes=classes)
    setting = problem(FactoredDesign(x, vectors), labels)
    penalty = Penalty(0.1 * share, 0.01 * share)
    rough = fit(setting, penalty, null(setting), tolerance=0.05)
    fine = fit(setting, penalty, null(setting), tolerance=1e-5)
    assert rough.value - fine.value <= rough.gap + 1e-4
    assert rough.gap <= 0.05 * rough.value + 1e-4 or rough.iterations == 500


def test_above_the_strongest_penalty_every_weight_is_zero():
    x, vectors, labels = data(5)
    setting = problem(FactoredDesign(x, vectors), labels)
    _, residual = softmax.residual(null(setting).scores, labels)
    top = float(np.abs(setting.design.gradient(residual)).max())
    assert not fit(setting, Penalty(1.001 * top, 0.0), null(setting), limit=50).weight.any()
    assert fit(setting, Penalty(0.9 * top, 0.0), null(setting), tolerance=1e-6).weight.any()


def test_a_support_is_respected_and_its_ridge_fit_is_stationary():
    x, vectors, labels = data(6)
    setting = problem(FactoredDesign(x, vectors), labels)
    mask = np.zeros((3, 9), bool)
    mask[0, :3] = mask[1, 4:6] = mask[2, 8] = True
    result = fit(
        setting, Penalty(0.0, 0.05), null(setting), support=ConceptSupport.of(mask), tolerance=1e-6, limit=200
    )
    assert not result.weight[~mask].any()
    _, residual = softmax.residual(result.scores, labels)
    slope = setting.design.gradient(residual) + 0.05 * result.weight
    assert np.abs(slope[mask]).max() < 2e-3
    assert np.abs(residual.mean(1)).max() < 2e-3


def test_direct_steps_over_the_spectrum_end_where_coordinates_do():
    x, vectors, labels = data(7)
    setting = problem(FactoredDesign(x, vectors), labels)
    everything = ConceptSupport.of(np.ones((3, 9), bool))
    plain = fit(setting, Penalty(0.0, 0.1), null(setting), support=everything, tolerance=1e-6, limit=300)
    values, vectors = np.linalg.eigh(setting.gram)
    direct = setting._replace(spectrum=(values, vectors))
    fast = fit(direct, Penalty(0.0, 0.1), null(setting), support=everything, tolerance=1e-6, limit=300)
    assert fast.value == pytest.approx(plain.value, rel=1e-5)
    np.testing.assert_allclose(fast.weight, plain.weight, atol=5e-3)


@pytest.mark.parametrize("form", ["factors", "formed"])
def test_products_over_a_support_are_those_of_the_whole_design(form):
    x, vectors, _ = data(3, rows=60, width=40, concepts=9)
    design = FactoredDesign(x, vectors) if form == "factors" else DenseDesign(x @ vectors.T)
    draw = np.random.default_rng(0)
    mask = draw.random((3, 9)) < 0.3
    mask[1] = False
    support = ConceptSupport.of(mask)
    small = narrowed(design, support.columns, support.starts)
    assert isinstance(small, SupportDesign) == (8 * mask.sum() <= 3 * (40 if form == "factors" else 9))
    weight = np.where(mask, draw.normal(size=mask.shape), 0).astype(np.float32)
    residual = draw.normal(size=(3, 60)).astype(np.float32)
    np.testing.assert_allclose(small.scores(weight), design.scores(weight), atol=1e-4)
    np.testing.assert_allclose(
        np.where(mask, small.gradient(residual), 0), np.where(mask, design.gradient(residual), 0), atol=1e-5
    )
    again = narrowed(design, support.columns[:1], np.array([0, 1, 1, 1]))
    if isinstance(again, SupportDesign):
        np.testing.assert_allclose(
            again.scores(weight)[0],
            design.scores(weight * (np.arange(9) == support.columns[0]))[0],
            atol=1e-4,
        )
