"""bntools cbm-build as a user meets it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import concepts

from bntools import cli
from bntools.core.artifact.reader import open_path
from bntools.core.methods.cbm import file


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return concepts.folder(tmp_path_factory.mktemp("cbm"))


@pytest.fixture
def call(capfd):
    def inside(*words):
        status = cli.run([*map(str, words)])
        return status, *capfd.readouterr()

    return inside


def build(call, root, *words, target="m.safetensors"):
    status, out, err = call("cbm-build", root / "train.safetensors", *words, "-o", root / target, "-f", "-q")
    return status, json.loads(out) if status == 0 else out, err


def text(root):
    return (
        "--concepts",
        root / "concepts.safetensors",
        "--class-embeddings",
        root / "classes.safetensors",
        "--no-normalize",
    )


def test_the_planted_concepts_are_the_ones_a_class_gets(call, root):
    status, report, err = build(call, root, *text(root), "--nec", 2, "--table", "1,2,4", "--select", "all")
    assert status == 0, err
    assert report["nec"] == 2
    for c, name in enumerate(concepts.CLASSES):
        chosen = {concept for concept, weight in report["top"][name] if weight > 0}
        assert chosen == {concepts.NAMES[k] for k in concepts.MAKES[c]}
    assert [p["weights"] for p in report["path"]] == [4, 8, 16]
    assert {"zero_shot", "linear_probe", "all_concepts"} <= set(report["baselines"])


def test_a_build_scores_beside_its_baselines_and_shows_its_concepts(call, root):
    assert build(call, root, *text(root), "--per-class", 2)[0] == 0
    status, out, err = call("eval", root / "m.safetensors", "--data", root / "test.safetensors")
    assert status == 0, err
    report = json.loads(out)
    assert report["kind"] == "cbm-eval"
    assert report["accuracy"]["value"] > 0.65
    assert report["accuracy"]["value"] > report["baselines"]["linear_probe"]["value"] - 0.1
    assert report["concept_auc"]["mean"] > 0.8
    assert report["cem"]["1"] > 0.7
    status, out, err = call("info", root / "m.safetensors")
    assert status == 0, err
    assert "concept" in json.dumps(json.loads(out))


@pytest.mark.parametrize("method", ["pcbm", "pcbm-h", "cms", "linear"])
def test_every_method_writes_a_bottleneck_that_beats_chance_and_names_its_fault(call, root, method):
    status, report, err = build(call, root, *text(root), "--method", method, target=f"{method}.safetensors")
    assert status == 0, err
    assert report["notes"]["fault"]
    with open_path(root / f"{method}.safetensors") as opened:
        model = file.read(opened)
    x, y, _ = concepts.rows(1)
    assert (model.predict(x) == y).mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("words", [("sparse",), ("gumbel",), ("contrastive",), ("labo", "--paper")])
def test_methods_that_train_by_gradients_beat_chance(call, root, words):
    status, _, err = build(call, root, *text(root), "--method", *words, target="g.safetensors")
    assert status == 0, err
    with open_path(root / "g.safetensors") as opened:
        model = file.read(opened)
    x, y, _ = concepts.rows(1)
    assert (model.predict(x) == y).mean() > 0.5


def test_annotations_make_concepts_that_can_be_told_the_truth(call, root):
    status, report, err = build(call, root, "--bank", "cav", "--nec", 3, "--audit", target="cav.safetensors")
    assert status == 0, err
    assert min(q["auc"] for q in report["concept_quality"]) > 0.8
    assert report["audit"]["findings"] == []
    status, out, _ = call("eval", root / "cav.safetensors", "--data", root / "test.safetensors")
    score = json.loads(out)
    assert score["true_concepts"]["value"] > score["accuracy"]["value"]


def test_the_same_seed_gives_the_same_bytes(call, root, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = build(call, root, *text(root))[1]["output"]["sha256"]
    assert build(call, root, *text(root))[1]["output"]["sha256"] == first


def test_truncating_the_path_is_within_reach_and_worse_at_one_concept(call, root):
    exact = build(call, root, *text(root), "--nec", 1, "--table", "1", "--select", "all")[1]
    cut = build(call, root, *text(root), "--nec", 1, "--table", "1", "--no-refit", "--select", "all")[1]
    assert cut["path"][0]["weights"] == exact["path"][0]["weights"] == 4
    assert cut["train_accuracy"] <= exact["train_accuracy"]


@pytest.mark.parametrize(("words", "code", "said"), [
    (("--nec", "0"), 2, "neither auto"),
    (("--nec", "99"), 2, "the bank has 12 concepts"),
    (("--table", "1,x"), 2, "no list"),
    (("--l2", "much"), 2, "neither auto"),
    (("--l2", "-1"), 2, "not positive"),
    (("--bank", "cav", "--truth", "missing.safetensors"), 2, "cannot open"),
    (("--demo",), 2, "static text encoder"),
])  # fmt: skip
def test_a_wrong_option_says_what_to_do(call, root, words, code, said):
    status, _, err = build(call, root, *text(root), "--select", "all", *words)
    assert status == code
    assert said in err
    assert "hint:" in err


def test_inputs_that_do_not_fit_are_refused(call, root, tmp_path):
    x, y, _ = concepts.rows(0)
    cases = {
        "nan": (
            concepts.write(tmp_path / "nan.safetensors", np.where(y[:, None] == 9, x, np.nan), label=y),
            "NaN",
        ),
        "no labels": (concepts.write(tmp_path / "plain.safetensors", x), "no labels"),
        "one class": (concepts.write(tmp_path / "one.safetensors", x, label=0 * y), "one class"),
        "width": (concepts.write(tmp_path / "narrow.safetensors", x[:, :7], label=y), "dimensions"),
        "encoder": (
            concepts.write(tmp_path / "other.safetensors", x, label=y, facts={"encoder": "else"}),
            "made by else",
        ),
    }
    for name, (path, said) in cases.items():
        status, _, err = call("cbm-build", path, *text(root), "-o", tmp_path / "x.safetensors")
        assert status == 3, name
        assert said in err, name
    assert not (tmp_path / "x.safetensors").exists()


def test_odd_but_sound_inputs_are_built(call, root, tmp_path):
    """One concept, two classes, a class of one row, labels with gaps, a constant concept, an owner of nothing."""
    x, y, _ = concepts.rows(0)
    y = np.where(y > 1, 17, 3)
    y[0] = 99
    data = concepts.write(tmp_path / "d.safetensors", x, label=y, names=["naïve 水"] * len(y))
    bank = np.vstack([np.eye(12)[:3], np.zeros(12)])
    owner = np.zeros((4, 100), np.int64)
    odd = concepts.write(tmp_path / "c.safetensors", bank, names=["Flügel", "水", "c", "zero"], owner=owner)
    one = concepts.write(tmp_path / "k.safetensors", np.eye(12)[:1], names=["only"])
    two = concepts.write(tmp_path / "t.safetensors", x, label=y % 2 * 0 + (y > 10))
    for rows, pool in ((data, odd), (data, one), (two, odd)):
        target = tmp_path / "o.safetensors"
        words = ("--no-normalize", "--nec", 1, "-o", target, "-f", "-q")
        status, out, err = call("cbm-build", rows, "--concepts", pool, *words)
        assert status == 0, err
        with open_path(target) as opened:
            model = file.read(opened)
        assert np.isfinite(model.logits(x)).all()
    assert json.loads(out)["constant_concepts"] == 1


def test_an_audit_finds_concepts_that_cannot_be_told_apart(call, root, tmp_path):
    x, y, present = concepts.rows(0)
    present[:, 1] = present[:, 0]
    present[:, 2] = y == 1
    present[:, 3] = 0
    data = concepts.write(tmp_path / "d.safetensors", x, label=y, concept=present)
    words = ("cbm-build", data, *text(root), "-o", tmp_path / "m.safetensors", "-f", "-q", "--truth", data)
    status, out, _ = call(*words, "--audit")
    assert status == 0
    audit = json.loads(out)["audit"]
    assert (audit["pairs_together"], audit["class_level"], audit["constant"]) == (1, ["concept c"], 1)
    assert audit["effective_rank"] < 11
    assert call(*words, "--strict")[0] == 4


def test_a_dry_run_writes_nothing(call, root, tmp_path):
    target = tmp_path / "m.safetensors"
    status, out, _ = call("cbm-build", root / "train.safetensors", *text(root), "-o", target, "--dry-run")
    assert status == 0
    assert json.loads(out)["kind"] == "plan"
    assert not target.exists()
