"""A bottleneck over sequences against its definition, window by window and channel by channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError
from bntools.core.methods.cbm.sequence import file
from bntools.core.methods.cbm.sequence.model import CHANNEL, Form, SequenceModel, forward, maps, predict
from bntools.core.methods.cbm.sequence.score import means, shuffled

COUNT, CLASSES, WIDTH = 4, 3, 6
PLACES = ("place", "key_place", "value_place")


@pytest.fixture
def model() -> SequenceModel:
    draw = np.random.default_rng(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.from_numpy(draw.normal(size=shape).astype(np.float32))

    parameters = {name: numbers(COUNT) for name in CHANNEL}
    return SequenceModel(
        draw.normal(size=(COUNT, WIDTH)).astype(np.float32), np.full(COUNT, 0.3, np.float32),
        np.full(COUNT, 0.8, np.float32),
        {**parameters, "weight": numbers(CLASSES, COUNT), "bias": numbers(CLASSES)}, list("abcd"), ["x", "y", "z"],
        np.arange(3), temperature=1.5,
        baselines={"mean_of_windows": (np.ones((3, 4), np.float32), np.zeros(3, np.float32))},
    )  # fmt: skip


def reference(p: dict[str, np.ndarray], x: np.ndarray, temperature: float) -> np.ndarray:
    """Logits of one sequence x [T, K], by loops over channels and windows."""
    length, concepts = len(x), np.zeros(x.shape)
    for k in range(x.shape[1]):
        q = {name: float(p[name][k]) for name in CHANNEL}
        place = np.array([2 * t / (length - 1) - 1 if length > 1 else 0.0 for t in range(length)])
        z = x[:, k] + q["place"] * place
        h = q["gain"] * z + q["shift"]
        attended = np.zeros(length)
        for t in range(length):
            query = (q["query"] * h[t] + q["query_shift"]) * np.exp(np.clip(q["sharpness"], -5, 5))
            look = np.exp(query * (q["key"] * h + q["key_shift"] + q["key_place"] * place))
            value = q["value"] * h + q["value_shift"] + q["value_place"] * place
            attended[t] = (look / look.sum()) @ value
        z = z + attended
        inner = q["inner"] * (q["gain_2"] * z + q["shift_2"]) + q["inner_shift"]
        gelu = torch.nn.functional.gelu(torch.from_numpy(inner)).numpy()
        z = z + q["outer"] * gelu + q["outer_shift"]
        concepts[:, k] = np.maximum(0, np.log1p(np.exp(q["slope"] * z + q["offset"])) - np.log(2))
    windows = concepts @ p["weight"].T.astype(float) + p["bias"]
    return np.log(np.exp(temperature * windows).mean(0)) / temperature


def test_a_pass_is_its_definition(model):
    scores = np.random.default_rng(1).normal(size=(13, COUNT)).astype(np.float32)
    starts = np.array([0, 5, 6, 13])
    plain = {name: value.double().numpy() for name, value in model.parameters.items()}
    logits = predict(model, scores, starts)
    for i in range(3):
        expected = reference(plain, scores[starts[i] : starts[i + 1]].astype(float), model.temperature)
        np.testing.assert_allclose(logits[i], expected, atol=2e-4)


@pytest.mark.parametrize("paper", [False, True])
def test_padding_changes_nothing(model, paper):
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 9, COUNT)).astype(np.float32))
    form = Form(paper, 1.5)
    alone = forward(model.parameters, x[:, :6], torch.ones(1, 6, dtype=torch.bool), form)
    padded = forward(model.parameters, x, torch.arange(9)[None] < 6, form)
    torch.testing.assert_close(padded.logits, alone.logits, atol=1e-5, rtol=1e-5)


def test_a_concept_is_read_from_its_own_channel_alone_but_not_in_the_published_form(model):
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(1, 7, COUNT)).astype(np.float32))
    other, mask = x.clone(), torch.ones(1, 7, dtype=torch.bool)
    other[..., 0] += 3
    moved = {}
    for paper in (False, True):
        before, after = (forward(model.parameters, v, mask, Form(paper)).concepts for v in (x, other))
        moved[paper] = (before - after).abs().amax((0, 1))[1:]
    assert not moved[False].any()
    assert moved[True].any()


def test_attention_is_a_distribution_over_windows_and_uniform_attention_forgets_their_order(model):
    scores = np.random.default_rng(4).normal(size=(6, COUNT)).astype(np.float32)
    looks = maps(model, scores, [2, 0])
    assert looks.shape == (2, 6, 6)
    np.testing.assert_allclose(looks.sum(-1), 1, atol=1e-5)
    still = replace(model, parameters={**model.parameters, **dict.fromkeys(PLACES, torch.zeros(COUNT))})
    starts = np.array([0, 6])
    for uniform in (False, True):
        first, second = (predict(still, s, starts, uniform=uniform) for s in (scores, scores[::-1].copy()))
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_means_and_shuffles_stay_within_a_sequence():
    scores, starts = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 4, 6])
    np.testing.assert_allclose(means(scores, starts), [[3, 4], [9, 10]])
    order = shuffled(starts, 0)
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert sorted(order[4:]) == [4, 5]


def test_a_file_gives_back_the_same_model_and_one_that_does_not_fit_is_refused(model, tmp_path):
    short = {**model.parameters, "place": torch.zeros(COUNT - 1)}
    for name, written in (("good", model), ("bad", replace(model, parameters=short))):
        with Writer(str(tmp_path / name), file.KIND) as out:
            file.write(out, written)
    with open_path(tmp_path / "good") as opened:
        back = file.read(opened)
    x, starts = np.random.default_rng(5).normal(size=(8, WIDTH)).astype(np.float32), np.array([0, 3, 8])
    np.testing.assert_array_equal(
        predict(back, back.scores(x), starts), predict(model, model.scores(x), starts)
    )
    assert (back.names, back.temperature, set(back.baselines)) == (model.names, 1.5, {"mean_of_windows"})
    with open_path(tmp_path / "bad") as opened, pytest.raises(BnError, match="do not fit together"):
        file.read(opened)
