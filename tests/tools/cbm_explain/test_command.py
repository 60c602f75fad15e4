"""bntools cbm-explain as a user meets it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import concepts

from bntools import cli
from bntools.core.artifact.reader import open_path
from bntools.core.methods.cbm import file
from bntools.tools.cbm_explain.explain import counterfactual


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = concepts.folder(tmp_path_factory.mktemp("explain"))
    words = [
        "--bank",
        "cav",
        "--nec",
        "3",
        "--table",
        "1,3",
        "--no-normalize",
        "-q",
        "-o",
        str(root / "m.safetensors"),
    ]
    assert cli.run(["cbm-build", str(root / "train.safetensors"), *words]) == 0
    return root


@pytest.fixture(scope="module")
def model(root):
    with open_path(root / "m.safetensors") as opened:
        return file.read(opened)


@pytest.fixture
def explain(root, capfd):
    def call(*words):
        status = cli.run(
            [
                "cbm-explain",
                str(root / "m.safetensors"),
                "--data",
                str(root / "test.safetensors"),
                *map(str, words),
            ]
        )
        out, err = capfd.readouterr()
        return status, json.loads(out) if status == 0 else out, err

    return call


def test_contributions_bias_and_rest_are_the_logit(explain):
    for row in (0, 5):
        status, report, _ = explain("--row", row, "--top", 2)
        assert status == 0
        total = report["bias"] + report["rest"] + sum(c["contribution"] for c in report["contributions"])
        assert total == pytest.approx(report["logit"], abs=1e-4)


def test_a_counterfactual_overturns_the_decision_and_no_single_concept_does_where_it_takes_two(
    explain, model
):
    x, _, _ = concepts.rows(1)
    seen = set()
    for row in range(60):
        scores, logits = (
            model.concepts(x[row : row + 1])[0],
            model.logits(x[row : row + 1])[0].astype(np.float64),
        )
        change = counterfactual(model, scores, logits)
        if change is None:
            continue
        moved = scores.copy()
        for step in change["changes"]:
            moved[model.names.index(step["concept"])] = step["to"]
        assert model.classes[int((model.weight @ moved + model.bias).argmax())] == change["class"]
        assert np.abs(moved - scores).sum() == pytest.approx(change["distance"], rel=1e-4)
        seen.add(len(change["changes"]))
        if len(change["changes"]) > 1:
            for k in np.flatnonzero(model.live):
                for goal in (-3, 3):
                    single = scores.copy()
                    single[k] = goal if goal * np.sign(scores[k]) < 3 or abs(scores[k]) < 3 else scores[k]
                    assert int((model.weight @ single + model.bias).argmax()) == int(logits.argmax())
    assert seen


def test_correcting_concepts_raises_accuracy_faster_than_random_questions(explain):
    status, report, _ = explain("--intervene", "truth", "--budget", "1,2,4,12")
    assert status == 0
    gains = [p["gain"] for p in report["curve"]]
    assert [p["corrected"] for p in report["curve"]] == [0, 1, 2, 4, 12]
    assert gains[1] > report["random"][1]["gain"] + 0.02
    assert report["curve"][-1]["accuracy"] == report["random"][-1]["accuracy"] == report["all_concepts"]


@pytest.mark.parametrize("policy", ["random", "uncertainty", "margin", "mixed"])
def test_every_policy_ends_where_all_is_known(explain, policy):
    status, report, _ = explain("--intervene", "truth", "--policy", policy, "--budget", "2,12")
    assert status == 0
    assert report["curve"][-1]["accuracy"] == report["all_concepts"]


def test_what_is_set_changes_the_decision(explain, model):
    status, report, _ = explain("--set", "concept c=3", "--set", "concept d=3", "--set", "concept a=-2")
    assert status == 0
    assert report["changed_to"] == "camel"
    assert sum(c["after"] for c in report["classes"]) == pytest.approx(1, abs=1e-5)


def test_the_classes_are_explained_by_their_planted_concepts(explain):
    status, report, _ = explain("--global")
    assert status == 0
    for c, found in enumerate(report["classes"]):
        assert found["concepts"][0]["concept"] in {concepts.NAMES[k] for k in concepts.MAKES[c]}
        assert sum(k["share"] for k in found["concepts"]) <= 1 + 1e-6


def test_another_sparsity_of_the_table_can_be_asked(explain):
    status, report, _ = explain("--nec", 1, "--global")
    assert (status, report["nec"]) == (0, 1)


@pytest.mark.parametrize("words", [("--row", "0"), ("--global",), ("--intervene", "truth")])
def test_pictures_are_drawn(explain, tmp_path, words):
    pytest.importorskip("matplotlib")
    target = tmp_path / "p.png"
    assert explain(*words, "--plot", target)[0] == 0
    assert target.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("words", "code", "said"), [
    (("--row", "4000"), 2, "no row 4000"),
    (("--set", "concept x=1"), 2, "no concept"),
    (("--set", "concept a"), 2, "not CONCEPT=VALUE"),
    (("--nec", "2"), 2, "no such head"),
    (("--global", "--set", "concept a=1"), 2, "different questions"),
    (("--budget", "a"), 2, "no list"),
    (("--intervene", "nowhere.safetensors"), 2, "cannot open"),
    (("--plot", "x.txt"), 2, "no picture format"),
])  # fmt: skip
def test_a_wrong_question_says_what_to_do(explain, words, code, said):
    status, _, err = explain(*words)
    assert status == code
    assert said in err


def test_annotations_need_levels(root, capfd, tmp_path):
    words = ["--concepts", str(root / "concepts.safetensors"), "--no-normalize", "-q"]
    x, y, _ = concepts.rows(0)
    plain = concepts.write(tmp_path / "p.safetensors", x, label=y)
    target = tmp_path / "m.safetensors"
    assert cli.run(["cbm-build", str(plain), *words, "-o", str(target)]) == 0
    status = cli.run(
        ["cbm-explain", str(target), "--data", str(root / "test.safetensors"), "--intervene", "truth"]
    )
    assert status == 3
    assert "build it with --truth" in capfd.readouterr().err
