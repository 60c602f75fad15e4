"""Methods that bring a concept layer or a model of their own: ecbm, motif, dn, lf."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from support import concepts

from bntools import cli
from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.methods import sparse_dictionary
from bntools.core.methods.cbm import file
from bntools.core.methods.sparse_dictionary import Dictionary
from bntools.tools.cbm_build.methods import dn, ecbm, lf
from bntools.tools.cbm_build.settings import Settings


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return concepts.folder(tmp_path_factory.mktemp("methods"))


@pytest.fixture
def call(capfd):
    def inside(*words):
        status = cli.run([*map(str, words)])
        out, err = capfd.readouterr()
        return status, json.loads(out) if status == 0 and out else out, err

    return inside


def test_folded_energies_are_those_of_the_paper():
    """phi(a, b) = ReLU(a + a b) with unit vectors, one energy at a time; E_cy up to what all classes share."""
    torch.manual_seed(0)
    net = {name: value.detach().numpy() for name, value in ecbm._parameters(3, 4, 5).items()}
    draw = np.random.default_rng(0)
    x = draw.normal(size=5).astype(np.float32)
    bank = type("Named", (), {"names": list("abcd")})()
    training = type("Rows", (), {"bank": bank, "classes": list("xyz")})()
    center, spread = draw.normal(size=5).astype(np.float32), 2.0
    model = ecbm._folded(net, training, (center, spread), Settings(method="ecbm", normalize=False))

    def phi(a, b):
        b = b / np.linalg.norm(b)
        return np.maximum(a + a * b, 0)

    seen = (x - center) / spread
    rows = net["to_class"] @ seen + net["class_shift"]
    of_class = [net["class_energy"] @ phi(rows, net["class_vectors"][y]) for y in range(3)]
    logits = model.class_logits(x[None])[0]
    np.testing.assert_allclose(logits - logits[0], of_class[0] - np.array(of_class), atol=1e-4)
    rows = net["to_concept"] @ seen + net["concept_shift"]
    odds = [
        net["concept_energy"][k] @ (phi(rows, v[0]) - phi(rows, v[1]))
        for k, v in enumerate(net["concept_vectors"])
    ]
    np.testing.assert_allclose(model.concept_odds(x[None])[0], odds, atol=1e-4)
    for state in ([0, 0, 0, 0], [1, 0, 1, 1]):
        vectors = [
            net["concept_vectors"][k, v] / np.linalg.norm(net["concept_vectors"][k, v])
            for k, v in enumerate(state)
        ]
        joint = net["base"] + sum(net["mixing"][k] @ vector for k, vector in enumerate(vectors))
        both = np.array([net["global_energy"] @ phi(joint, net["class_vectors"][y]) for y in range(3)])
        energy = model.global_energy(np.array([state], np.float32))[0]
        np.testing.assert_allclose(energy, both - both.mean(), atol=1e-4)


@pytest.fixture(scope="module")
def energies(root):
    words = ["--method", "ecbm", "--no-normalize", "--epochs", "100", "-q", "-o", str(root / "e.safetensors")]
    assert cli.run(["cbm-build", str(root / "train.safetensors"), *words]) == 0
    return root / "e.safetensors"


def test_energies_tell_classes_and_concepts_and_use_concepts_they_are_told(call, root, energies):
    status, report, err = call("eval", energies, "--data", root / "test.safetensors")
    assert status == 0, err
    assert report["accuracy"]["value"] > report["baselines"]["linear_probe"]["value"] - 0.05
    right = report["concept_accuracy"]
    assert right["joint"] > right["always_absent"] + 0.05
    assert report["true_concepts"]["value"] > report["accuracy"]["value"] + 0.05
    status, info, err = call("info", energies)
    assert status == 0, err
    assert info["facts"]["method"] == "ecbm"


def test_energies_need_annotations(call, root, tmp_path):
    plain = concepts.write(tmp_path / "plain.safetensors", *concepts.rows(0)[:1], label=concepts.rows(0)[1])
    status, _, err = call("cbm-build", plain, "--method", "ecbm", "-o", tmp_path / "x.safetensors")
    assert status == 2
    assert "--truth FILE" in err


@pytest.fixture(scope="module")
def order(tmp_path_factory):
    """Two concepts somewhere in noise: class 0 has the first before the second, class 1 behind it."""
    root = tmp_path_factory.mktemp("order")
    for name, seed, count in (("train", 0, 500), ("test", 1, 400)):
        concepts.sequences(root / f"{name}.safetensors", seed, count)
    concepts.write(root / "concepts.safetensors", np.eye(8)[:6], names=concepts.NAMES[:6])
    return root


def test_the_order_of_two_concepts_is_told_where_means_are_at_chance(call, order):
    target = order / "m.safetensors"
    words = (
        "--concepts",
        order / "concepts.safetensors",
        "--method",
        "motif",
        "--no-normalize",
        "--epochs",
        80,
    )
    status, report, err = call("cbm-build", order / "train.safetensors", *words, "-o", target, "-f", "-q")
    assert status == 0, err
    assert report["sequences"] == 500
    status, score, err = call("eval", target, "--data", order / "test.safetensors")
    assert status == 0, err
    assert score["accuracy"]["value"] > 0.95
    chance = 3 * (0.25 / score["sequences"]) ** 0.5
    assert abs(score["baselines"]["mean_of_windows"]["value"] - 0.5) < chance
    assert abs(score["shuffled"]["value"] - 0.5) < chance
    status, info, err = call("info", target)
    assert info["facts"]["method"] == "motif"


def test_windows_need_to_say_which_sequence_they_are_of(call, root, order, tmp_path):
    words = (
        "--concepts",
        order / "concepts.safetensors",
        "--method",
        "motif",
        "-o",
        tmp_path / "x.safetensors",
    )
    status, _, err = call("cbm-build", root / "train.safetensors", *words)
    assert status == 3
    assert "has no column doc" in err


def dictionary(**changes) -> Dictionary:
    """Concept k of the planted task as latent k, two latents that nothing uses, in units that are not the data's."""
    E = np.vstack([np.eye(12), -np.ones((2, 12))]).astype(np.float32)
    E[13, 0] = -9
    mean, scale = np.full(12, 0.1, np.float32), 0.5
    facts = {"method": "topk", "k": 4, "m": 14, "d": 12}
    values = {"E": E, "be": np.full(14, -1.2, np.float32), "D": E, "bd": np.full(12, 0.05, np.float32), "mean": mean,
              "scale": scale, "facts": facts}  # fmt: skip
    return Dictionary(**{**values, **changes})


@pytest.mark.parametrize("method", ["topk", "batchtopk", "relu"])
def test_a_latent_scores_as_its_dictionary_encodes(method):
    theta = None if method != "batchtopk" else np.linspace(0, 1, 14).astype(np.float32)
    given = dictionary(facts={"method": method, "k": 4, "m": 14, "d": 12}, theta=theta)
    x = concepts.rows(0)[0]
    bank, quality = dn.concept_layer(given, None, x, 0.5)
    codes = given.encode(x)
    dense = np.zeros((len(x), 14), np.float32)
    dense[codes.pair_rows, codes.latents] = codes.values
    live = [entry["latent"] for entry in quality]
    assert live == np.flatnonzero(dense.any(0)).tolist()
    # its own scores are in bfloat16 where the processor has that
    np.testing.assert_allclose(bank.raw(x), dense[:, live], atol=0.05)


def test_latents_are_named_after_words_near_them_and_those_far_stay_unnamed(call, root, tmp_path):
    pursuit = {"kind": "pursuit", "candidates": 8, "k": 4}  # as sparse-code writes it unless told otherwise
    with Writer(str(tmp_path / "sae.safetensors"), sparse_dictionary.KIND) as out:
        sparse_dictionary.write(out, dictionary(facts={**dictionary().facts, "inference": pursuit}))
    words = np.eye(12)[:8] + 0.1
    vocabulary = concepts.write(
        tmp_path / "words.safetensors", words, names=[*concepts.NAMES[:7], concepts.NAMES[6]]
    )
    given = (
        "--method",
        "dn",
        "--codes",
        tmp_path / "sae.safetensors",
        "--vocabulary",
        vocabulary,
        "--nec",
        2,
    )
    target = tmp_path / "dn.safetensors"
    status, report, err = call("cbm-build", root / "train.safetensors", *given, "-o", target, "-q")
    assert status == 0, err
    named = {q["latent"]: q["concept"] for q in report["concept_quality"]}
    assert [named[k] for k in range(8)] == [*concepts.NAMES[:7], f"{concepts.NAMES[6]} (2)"]
    assert [named[k] for k in range(8, 12)] == [f"latent {k}" for k in range(8, 12)]
    for c, name in enumerate(concepts.CLASSES[:3]):
        assert {n for n, weight in report["top"][name] if weight > 0} == {
            concepts.NAMES[k] for k in concepts.MAKES[c]
        }
    status, score, err = call("eval", target, "--data", root / "test.safetensors")
    assert status == 0, err
    assert score["accuracy"]["value"] > 0.6
    with open_path(target) as opened:
        assert file.read(opened).activation == "topk:4"


def test_cubes_are_maximised_from_where_squares_leave_off():
    """The gradient is that of the similarity, and held-out similarity is not below the ridge regression's."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 5)).astype(np.float32)
    target = (np.maximum(x @ draw.normal(size=(5, 3)), 0) + 0.5 * draw.normal(size=(300, 3))).astype(
        np.float32
    )
    scores = draw.normal(size=(40, 3)).astype(np.float64)
    wanted = lf._cubes(target[:40].astype(np.float64))[1]
    slope, step = lf._slope(scores, wanted), 1e-5
    for i, k in ((0, 0), (7, 2)):
        moved = scores.copy()
        moved[i, k] += step
        change = ((lf._cubes(moved)[1] - lf._cubes(scores)[1]) * wanted).sum(0)[k] / step
        plus = scores.copy()
        plus[i + 1, k] += step
        other = ((lf._cubes(plus)[1] - lf._cubes(scores)[1]) * wanted).sum(0)[k] / step
        assert change * slope[i + 1, k] == pytest.approx(other * slope[i, k], rel=1e-2, abs=1e-8)
    ridge = np.linalg.lstsq(x[:200], target[:200] - target[:200].mean(0), rcond=None)[0].T
    vectors, similarity = lf.project(x[:200], target[:200], (x[200:], target[200:]))
    assert (similarity >= lf.similarity(x[200:] @ ridge.T, target[200:]) - 1e-3).all()
    np.testing.assert_allclose(lf.similarity(x[200:] @ vectors.T, target[200:]), similarity, atol=1e-5)


def test_concepts_of_another_encoder_are_read_from_the_embedding_and_the_unreadable_are_dropped(
    call, root, tmp_path
):
    x, y, present = concepts.rows(0, noise=0.25)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    shown = present[:, :9] @ np.eye(9, 12) + 0.3 * np.random.default_rng(1).normal(
        size=x.shape
    )  # none of the last 3
    backbone = concepts.write(tmp_path / "b.safetensors", x @ turn + 2, label=y, facts={"encoder": "other"})
    teacher = concepts.write(tmp_path / "t.safetensors", shown, facts={"encoder": "planted"})
    given = (
        "--method",
        "lf",
        "--teacher",
        teacher,
        "--concepts",
        root / "concepts.safetensors",
        "--select",
        "all",
    )
    status, report, err = call(
        "cbm-build", backbone, *given, "--nec", 2, "-o", tmp_path / "lf.safetensors", "-q"
    )
    assert status == 0, err
    dropped = {q["concept"] for q in report["concept_quality"] if q["dropped"]}
    assert set(concepts.NAMES[9:]) <= dropped
    for c in range(4):
        assert {n for n, weight in report["top"][f"class {c}"] if weight > 0} <= {
            concepts.NAMES[k] for k in concepts.MAKES[c]
        }
    status, _, err = call("cbm-build", backbone, "--method", "lf", "-o", tmp_path / "x.safetensors")
    assert status == 2
    assert "--teacher FILE" in err
