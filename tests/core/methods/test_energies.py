"""Inference with energies against sums over every state, and the file they are kept in."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError
from bntools.core.methods.cbm.energy import file
from bntools.core.methods.cbm.energy.energies import EnergyModel
from bntools.core.methods.cbm.energy.inference import block_rows, infer, normal
from bntools.core.methods.cbm.energy.queries import conditionals

COUNT, CLASSES, HIDDEN, WIDTH = 6, 3, 12, 5
STATES = np.array(list(itertools.product((0, 1), repeat=COUNT)), np.float32)


def model_of(seed: int, coupling: float = 1.0) -> EnergyModel:
    draw = np.random.default_rng(seed)

    def normal_of(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(np.float32)

    return EnergyModel(
        (normal_of(HIDDEN, WIDTH), normal_of(HIDDEN)), (normal_of(HIDDEN, WIDTH), normal_of(HIDDEN)),
        class_map=normal_of(CLASSES, HIDDEN) / 4, concept_map=normal_of(COUNT, HIDDEN) / 4, base=normal_of(HIDDEN),
        steps=normal_of(COUNT, HIDDEN) / 2, global_map=normal_of(CLASSES, HIDDEN) / 4, names=list("abcdef"),
        classes=["x", "y", "z"], labels=np.array([2, 7, 9]), coupling=(coupling, coupling),
    )  # fmt: skip


def rows(seed: int, count: int = 8) -> np.ndarray:
    return np.random.default_rng([seed, 1]).normal(size=(count, WIDTH)).astype(np.float32)


def exact(model: EnergyModel, x: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p(y | x, known) and p(c_k | y, x, known) of one row, by a sum over all states of classes and concepts."""
    logits, odds = model.class_logits(x[None])[0], model.concept_odds(x[None])[0]
    weight = np.zeros((CLASSES, len(STATES)))
    for y, (s, state) in itertools.product(range(CLASSES), enumerate(STATES)):
        z = np.maximum(model.base + state @ model.steps, 0)
        energy = -logits[y] - state @ odds + model.coupling[0] * float(z @ model.global_map[y])
        fits = all(known[k] in (-1, state[k]) for k in range(COUNT))
        weight[y, s] = np.exp(-energy) if fits else 0
    weight /= weight.sum()
    classes = weight.sum(1)
    return classes, weight @ STATES / classes[:, None]


@pytest.mark.parametrize(("coupling", "known"), [(0.0, [-1] * COUNT), (1.0, [1, 0, 0, 1, 1, 0])])
def test_without_coupling_or_with_every_concept_known_inference_is_exact(coupling, known):
    model, x = model_of(0, coupling), rows(0)
    posterior = infer(model, x, np.tile(np.array(known, np.int8), (len(x), 1)))
    for i, row in enumerate(x):
        classes, concepts = exact(model, row, np.array(known))
        np.testing.assert_allclose(posterior.classes[i], classes, atol=1e-5)
        np.testing.assert_allclose(posterior.given_class[i], concepts, atol=1e-5)


@pytest.mark.parametrize("known", [[-1] * COUNT, [1, -1, -1, 0, -1, -1]])
def test_a_mean_field_is_nearer_to_the_sum_over_states_than_factors_alone(known):
    """Mean over 20 random models of what is wrong with probabilities of classes, and of concepts in a class."""
    errors = np.zeros((2, 2))
    for seed in range(20):
        model, x = model_of(seed), rows(seed, 4)
        told = np.tile(np.array(known, np.int8), (len(x), 1))
        for j, tried in enumerate((model, replace(model, coupling=(0.0, 0.0)))):
            posterior = infer(tried, x, told)
            for i, row in enumerate(x):
                classes, concepts = exact(model, row, np.array(known))
                errors[j] += [
                    abs(posterior.classes[i] - classes).mean(),
                    abs(posterior.given_class[i] - concepts).mean(),
                ]
    assert (errors[0] < errors[1] / 3).all()


def test_a_row_has_the_same_result_whatever_rows_come_with_it():
    model = model_of(1)
    x = rows(1, 2 * block_rows(model) + 3)
    together = infer(model, x)
    order = np.random.default_rng(0).permutation(len(x))
    mixed = infer(model, x[order])
    for name in ("classes", "given_class", "steps"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(together, name)[order])
        for row in (0, 7, len(x) - 1):
            np.testing.assert_array_equal(
                getattr(infer(model, x[row : row + 1]), name)[0], getattr(together, name)[row]
            )
    assert len(set(together.steps.tolist())) > 1  # rows stop by themselves


def test_conditional_probabilities_are_averages_of_the_rows_posteriors():
    model, x = model_of(2), rows(2, 40)
    posterior, j = infer(model, x), 4
    answers = conditionals(model, x, j)
    for y, k in itertools.product(range(CLASSES), range(COUNT)):
        weight = posterior.classes[:, y]
        pair = weight * posterior.given_class[:, y, j]
        assert answers.of_class[y, k] == pytest.approx(
            np.average(posterior.given_class[:, y, k], weights=weight), rel=1e-4
        )
        expected = 1 if k == j else np.average(posterior.given_class[:, y, k], weights=pair)
        assert answers.given_class[y, k] == pytest.approx(expected, rel=1e-4)
    assert answers.classes.sum() == pytest.approx(1, rel=1e-5)
    both = (posterior.classes[..., None] * posterior.given_class * posterior.given_class[..., j : j + 1]).sum(
        (0, 1)
    )
    assert answers.given[1] == pytest.approx(both[1] / posterior.concepts[:, j].sum(), rel=1e-4)


def test_the_normal_distribution_is_that_of_a_table():
    from scipy.stats import norm

    z = np.linspace(-6, 6, 200).astype(np.float32)
    distribution, density = normal(z)
    np.testing.assert_allclose(distribution, norm.cdf(z), atol=1e-6)
    np.testing.assert_allclose(density, norm.pdf(z), atol=1e-6)


def test_a_file_gives_back_the_same_energies_and_one_that_does_not_fit_is_refused(tmp_path):
    model = replace(
        model_of(3),
        baselines={"concept_probe": (np.ones((COUNT, WIDTH), np.float32), np.zeros(COUNT, np.float32))},
    )
    for name, written in (("good", model), ("bad", replace(model, names=model.names[:-1]))):
        with Writer(str(tmp_path / name), file.KIND) as out:
            file.write(out, written)
    with open_path(tmp_path / "good") as opened:
        back = file.read(opened)
    x = rows(3)
    np.testing.assert_array_equal(infer(back, x).classes, infer(model, x).classes)
    assert (back.names, back.classes, set(back.baselines)) == (model.names, model.classes, {"concept_probe"})
    with open_path(tmp_path / "bad") as opened, pytest.raises(BnError, match="do not fit together") as error:
        file.read(opened)
    assert error.value.code == 3
