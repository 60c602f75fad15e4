"""A bottleneck's file, forward pass and metrics against their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError
from bntools.core.methods.cbm import file, metrics
from bntools.core.methods.cbm.bottleneck import Bottleneck
from bntools.core.methods.cbm.inputs import Embeddings, Truth
from bntools.core.methods.cbm.score import class_indices, intervened, score


@pytest.fixture
def model() -> Bottleneck:
    draw = np.random.default_rng(0)
    weight = np.where(draw.random((3, 5)) < 0.5, draw.normal(size=(3, 5)), 0).astype(np.float32)
    one = np.ones(5, np.float32)
    head = {"1": (weight * 0, np.zeros(3, np.float32)), "2": (weight, np.ones(3, np.float32))}
    return Bottleneck(
        vectors=draw.normal(size=(5, 4)).astype(np.float32), offsets=0.1 * one, mean=0.2 * one, std=2 * one,
        weight=weight, bias=np.arange(3, dtype=np.float32), names=["Flügel", "a b", "水", "d", "e"],
        classes=["x", "y", "z"], labels=np.array([2, 7, 40]), class_mean=np.zeros((3, 5), np.float32),
        counts=np.array([3, 4, 5]), scale=one.copy(), levels=np.stack([0 * one, one], 1), heads=head,
        baselines={"linear_probe": (np.ones((3, 4), np.float32), np.zeros(3, np.float32))},
        facts={"method": "labo"},
    )  # fmt: skip


def test_a_file_gives_back_the_same_bottleneck_also_with_names_in_any_script(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model = replace(model, residual=(np.ones((3, 4), np.float32), np.ones(3, np.float32)))
    with Writer(str(path), "cbm") as out:
        file.write(out, model)
    with open_path(path) as opened:
        back = file.read(opened)
    assert back.names == model.names
    assert back.classes == model.classes
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    assert np.array_equal(back.logits(x), model.logits(x))
    for nec, (weight, bias) in model.heads.items():
        assert np.array_equal(back.heads[nec][0], weight)
        assert np.array_equal(back.heads[nec][1], bias)
    assert back.labels.tolist() == [2, 7, 40]


def test_a_file_whose_parts_do_not_fit_is_refused(model, tmp_path):
    path = tmp_path / "m.safetensors"
    with Writer(str(path), "cbm") as out:
        file.write(out, replace(model, names=model.names[:-1]))
    with open_path(path) as opened, pytest.raises(BnError, match="do not fit together") as error:
        file.read(opened)
    assert error.value.code == 3


def test_logits_are_the_sum_of_contributions_and_a_bias(model):
    x = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
    logits, scores = model.logits(x), model.concepts(x)
    chosen = logits.argmax(1)
    parts = metrics.contributions(model, scores, chosen)
    np.testing.assert_allclose(parts.sum(1) + model.bias[chosen], logits.max(1), atol=1e-5)


def test_a_constant_concept_and_one_scaled_to_zero_have_no_say(model):
    x = np.random.default_rng(3).normal(size=(9, 4)).astype(np.float32)
    off = replace(
        model, std=np.array([0, 2, 2, 2, 2], np.float32), scale=np.array([1, 0, 1, 1, 1], np.float32)
    )
    assert not off.concepts(x)[:, :2].any()
    assert off.nec <= model.nec


def test_the_area_under_a_curve_counts_pairs():
    draw = np.random.default_rng(4)
    scores, positive = draw.integers(0, 6, 40).astype(float), draw.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert metrics.auc_one(scores, positive) == pytest.approx(np.mean(pairs))
    assert np.isnan(metrics.auc_one(scores, np.ones(40, bool)))


def test_coverage_is_the_fewest_concepts_that_reach_a_share():
    parts = np.array([[5.0, -4.0, 0.6, 0.4], [1.0, 0.0, 0.0, 0.0]], np.float32)
    found = metrics.coverage(parts)
    assert found == {"90": (2 + 1) / 2, "95": (3 + 1) / 2, "99": (4 + 1) / 2}


def test_existence_counts_the_annotated_among_the_strongest():
    parts = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, -3.0]])
    truth = np.array([[1, 0, 1], [0, -1, 1]])
    found = metrics.cem(parts, truth, (1, 2))
    assert found == {"1": 1.0, "2": pytest.approx(1 / 3)}


def test_predicting_the_truth_itself_is_pure_and_a_copied_concept_is_not():
    truth = (np.random.default_rng(5).random((200, 4)) < 0.4).astype(np.int8)
    assert metrics.impurity(truth.astype(np.float32), truth) == 0
    mixed = truth.astype(np.float32)
    mixed[:, 0] += 2 * mixed[:, 1]
    assert metrics.impurity(mixed, truth) > 0.1


def test_weights_that_are_the_attributes_have_similarity_one():
    attributes = np.random.default_rng(6).normal(size=(4, 7))
    found = metrics.cgim(2 * attributes, attributes)
    assert all(value == pytest.approx(1) for value in found.values())


def test_labels_with_gaps_find_their_class_and_others_are_refused(model):
    data = Embeddings(np.zeros((3, 4), np.float32), np.array([40, 2, 7]), [], {}, "rows")
    assert class_indices(model, data).tolist() == [2, 0, 1]
    with pytest.raises(BnError, match="label 3 is no class"):
        class_indices(model, replace(data, labels=np.array([2, 3, 7])))


def test_true_concepts_are_set_to_their_levels_and_unknown_ones_stay(model):
    scores = np.full((2, 5), 9.0, np.float32)
    told = intervened(model, scores, np.array([1, 3]), np.array([[1, 0], [-1, 1]]))
    np.testing.assert_allclose(told[:, [1, 3]], [[(1 - 0.2) / 2, -0.1], [9, 0.4]], atol=1e-6)
    assert (told[:, [0, 2, 4]] == 9).all()


def test_a_score_stands_beside_its_baselines_and_needs_the_same_encoder(model):
    draw = np.random.default_rng(7)
    data = Embeddings(
        draw.normal(size=(50, 4)).astype(np.float32), draw.choice([2, 7, 40], 50), [], {}, "rows"
    )
    truth = Truth(draw.integers(0, 2, (50, 2)).astype(np.int8), ["水", "a b"])
    report = score(model, data, truth)
    assert set(report["baselines"]) == {"linear_probe"}
    assert [p["nec"] for p in report["path"]] == [1, 2]
    assert report["annotated"] == 2
    assert report["leakage"] is not None
    other = replace(model, facts={"encoder": {"encoder": "clip"}})
    with pytest.raises(BnError, match="made by clip"):
        score(other, replace(data, facts={"encoder": "minilm"}))
    with pytest.raises(BnError, match="4 dimensions"):
        score(model, replace(data, x=data.x[:, :3]))
