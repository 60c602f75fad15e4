"""Explanations of energies and of sequences, and concepts over patches, as a user meets them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import concepts

from bntools import cli
from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.methods.cbm import file


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = concepts.folder(tmp_path_factory.mktemp("kinds"))
    concepts.sequences(root / "windows.safetensors", 0, 120)
    quiet = ["--no-normalize", "-q"]
    builds = {
        "e": ["train.safetensors", "--method", "ecbm", "--epochs", "20"],
        "m": [
            "train.safetensors",
            "--concepts",
            str(root / "concepts.safetensors"),
            "--nec",
            "2",
            "--select",
            "all",
        ],
        "s": [
            "windows.safetensors",
            "--concepts",
            str(root / "narrow.safetensors"),
            "--method",
            "motif",
            "--epochs",
            "5",
        ],
    }
    concepts.write(root / "narrow.safetensors", np.eye(8)[:6], names=concepts.NAMES[:6])
    for name, (data, *words) in builds.items():
        assert (
            cli.run(["cbm-build", str(root / data), *words, *quiet, "-o", str(root / f"{name}.safetensors")])
            == 0
        )
    return root


@pytest.fixture
def explain(root, capfd):
    def call(name, data, *words):
        status = cli.run(
            ["cbm-explain", str(root / f"{name}.safetensors"), "--data", str(root / data), *map(str, words)]
        )
        out, err = capfd.readouterr()
        return status, json.loads(out) if status == 0 else out, err

    return call


def test_a_class_makes_its_planted_concepts_likelier(explain):
    status, report, err = explain("e", "test.safetensors", "--global", "--top", 2)
    assert status == 0, err
    for c, name in enumerate(concepts.CLASSES):
        assert {k["concept"] for k in report["classes"][c]["concepts"]} == {
            concepts.NAMES[k] for k in concepts.MAKES[c]
        }
        assert report["classes"][c]["class"] == name
    assert sum(c["probability"] for c in report["classes"]) == pytest.approx(1, abs=1e-4)


def test_a_concept_makes_its_partner_likelier_in_all_rows(explain):
    status, report, err = explain("e", "test.safetensors", "--global", "--given", "concept a", "--top", 1)
    assert status == 0, err
    assert report["concepts"][0]["concept"] == "concept b"
    assert report["concepts"][0]["probability"] > report["concepts"][0]["in_all"] + 0.1


def test_known_concepts_move_the_class_and_the_other_concepts(explain):
    status, report, err = explain(
        "e",
        "test.safetensors",
        "--row",
        3,
        "--set",
        "concept c=1",
        "--set",
        "concept d=1",
        "--set",
        "concept a=0",
    )
    assert status == 0, err
    camel = next(c for c in report["classes"] if c["class"] == "camel")
    assert camel["after"] > camel["before"]
    assert not {"concept a", "concept c", "concept d"} & {c["concept"] for c in report["concepts"]}
    status, _, err = explain("e", "test.safetensors", "--set", "concept c=0.5")
    assert status == 2
    assert "present or absent" in err


def test_correcting_concepts_of_energies_raises_accuracy_as_far_as_all_of_them(explain):
    status, report, err = explain("e", "test.safetensors", "--intervene", "truth", "--budget", "2,12")
    assert status == 0, err
    assert report["policy"] == "uncertainty"
    assert report["curve"][1]["gain"] > 0.02
    assert report["curve"][-1]["accuracy"] == report["random"][-1]["accuracy"] == report["all_concepts"]


def test_a_row_of_energies_is_shown_with_and_without_its_concepts(explain, root):
    status, report, err = explain("e", "test.safetensors", "--row", 2, "--plot", root / "e.svg")
    assert status == 0, err
    assert report["classes"][0]["class"] == report["predicted"]
    assert all(0 <= c["given_class"] <= 1 for c in report["concepts"])


def test_contributions_over_time_are_the_logit(explain):
    for row in (0, 7):
        status, report, err = explain("s", "windows.safetensors", "--row", row, "--top", 2)
        assert status == 0, err
        total = (
            report["bias"]
            + report["rest"]
            + report["spread"]
            + sum(c["contribution"] for c in report["contributions"])
        )
        assert total == pytest.approx(report["logit"], abs=1e-4)
        assert sum(t["share"] for t in report["time"]) == pytest.approx(1, abs=1e-6)
        assert len(report["time"]) == report["windows"] == len(report["attention"][0]["looked_at"])
    status, report, err = explain("s", "windows.safetensors", "--global")
    assert status == 0, err
    assert sum(c["rows"] for c in report["classes"]) == report["sequences"] == 120


def test_a_window_of_a_concept_can_be_set(explain):
    status, report, err = explain(
        "s", "windows.safetensors", "--set", "concept a@1=3", "--set", "concept b=0"
    )
    assert status == 0, err
    assert report["classes"][0]["before"] != report["classes"][0]["after"]
    status, _, err = explain("s", "windows.safetensors", "--set", "concept a@99=3")
    assert status == 2
    assert "windows 0 to" in err


def test_a_concept_is_seen_in_the_patch_that_shows_it(explain, root):
    with open_path(root / "m.safetensors") as opened:
        names = file.read(opened).names
    _, local, _ = explain("m", "test.safetensors", "--row", 5, "--top", 2)
    shown = [c["concept"] for c in local["contributions"]]
    x = np.zeros((6, 12), np.float32)
    for place, name in zip((1, 5), shown, strict=True):
        x[place, concepts.NAMES.index(name)] = 1
    with Writer(str(root / "patches.safetensors"), "activations", force=True) as out:
        out.add_raw("x", "F32", x.shape, x[::-1].copy().tobytes())
        for name, values in (("doc", np.full(6, 5)), ("pos", np.arange(6)[::-1])):
            out.add_raw(name, "I64", values.shape, np.ascontiguousarray(values, np.int64).tobytes())
    given = ("--row", 5, "--top", 2, "--patches", root / "patches.safetensors")
    status, report, err = explain(
        "m", "test.safetensors", *given, "--grid", "2x3", "--plot", root / "maps.svg"
    )
    assert status == 0, err
    assert set(shown) <= set(names)
    assert [m["peak"] for m in report["maps"]] == [[0, 1], [1, 2]]
    status, _, err = explain("m", "test.safetensors", *given)
    assert status == 2
    assert "no grid" in err


@pytest.mark.parametrize(("name", "words", "said"), [
    ("m", ("--global", "--given", "concept a"), "--given asks nothing"),
    ("e", ("--nec", 2), "--nec asks nothing"),
    ("e", ("--given", "concept a"), "--given is asked of all rows"),
    ("e", ("--intervene", "truth", "--policy", "margin"), "looks at weights"),
    ("e", ("--set", "concept q=1"), "no concept 'concept q'"),
    ("m", ("--grid", "3", "--patches", "x"), "is not ROWSxCOLUMNS"),
    ("m", ("--global", "--patches", "x"), "maps the concepts of one row"),
])  # fmt: skip
def test_a_question_that_a_kind_has_no_answer_to_is_refused(explain, name, words, said):
    status, _, err = explain(name, "test.safetensors", *words)
    assert status == 2
    assert said in err
    assert "hint:" in err
