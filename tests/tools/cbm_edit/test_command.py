"""bntools cbm-edit as a user meets it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import concepts

from bntools import cli
from bntools.core.artifact.reader import open_path
from bntools.core.methods.cbm import file


def spurious(seed: int, share: float, count: int = 600):
    """Rows of the planted task where concept l goes with the class boat in `share` of its rows, else in 1 - share."""
    x, y, _ = concepts.rows(seed, count, noise=0.9)
    draw = np.random.default_rng(seed + 100)
    there = np.where(y == 0, draw.random(len(y)) < share, draw.random(len(y)) < 1 - share)
    x[:, 11] = 1.5 * there + 0.3 * draw.normal(size=len(y))
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = concepts.folder(tmp_path_factory.mktemp("edit"))
    for name, seed, share, count in (
        ("source", 0, 0.95, 1000),
        ("few", 3, 0.05, 40),
        ("target", 4, 0.05, 1500),
        ("guard", 5, 0.5, 1500),
    ):
        x, y = spurious(seed, share, count)
        concepts.write(
            root / f"{name}.safetensors",
            x,
            label=y,
            facts={"encoder": "planted", "classes": concepts.CLASSES},
        )
    words = ["--concepts", str(root / "concepts.safetensors"), "--no-normalize", "--nec", "3", "-q"]
    assert (
        cli.run(["cbm-build", str(root / "source.safetensors"), *words, "-o", str(root / "m.safetensors")])
        == 0
    )
    return root


def load(path):
    with open_path(path) as opened:
        return file.read(opened), opened.history


@pytest.fixture
def edit(root, capfd):
    def call(*words, target="e.safetensors"):
        status = cli.run(
            ["cbm-edit", str(root / "m.safetensors"), *map(str, words), "-o", str(root / target), "-f", "-q"]
        )
        out, err = capfd.readouterr()
        return status, json.loads(out) if status == 0 else out, err

    return call


def accuracy(model, root, name="target"):
    from bntools.core.methods.cbm.inputs import read_embeddings

    data = read_embeddings(str(root / f"{name}.safetensors"))
    return float((model.predict(data.x) == data.labels).mean())


def test_pruning_takes_out_one_weight_and_says_so(edit, root):
    before, _ = load(root / "m.safetensors")
    status, report, _ = edit("--prune", "boat:concept l")
    assert status == 0
    after, history = load(root / "e.safetensors")
    differs = np.argwhere(before.weight != after.weight)
    assert differs.tolist() == [[0, 11]]
    assert report["changes"] == history[-1]["changes"]
    assert report["changes"][0]["from"] == pytest.approx(float(before.weight[0, 11]))
    assert [stage["tool"] for stage in history] == ["cbm-build", "cbm-edit"]


def test_what_is_left_of_a_class_can_keep_its_norm(edit, root):
    before, _ = load(root / "m.safetensors")
    assert edit("--prune", "boat:concept l", "--normalize")[0] == 0
    after, _ = load(root / "e.safetensors")
    assert np.abs(after.weight[0]).sum() == pytest.approx(np.abs(before.weight[0]).sum(), rel=1e-5)
    assert np.array_equal(after.weight[1:], before.weight[1:])


def test_pruning_a_spurious_concept_helps_where_it_misleads(edit, root):
    before, _ = load(root / "m.safetensors")
    assert edit("--prune", "*:concept l")[0] == 0
    after, _ = load(root / "e.safetensors")
    assert accuracy(after, root) > accuracy(before, root) + 0.1


def test_a_few_labelled_rows_mask_the_spurious_concept_and_the_guard_holds(edit, root):
    before, _ = load(root / "m.safetensors")
    status, report, _ = edit("--adapt", root / "few.safetensors", "--guard", root / "guard.safetensors")
    assert status == 0
    after, _ = load(root / "e.safetensors")
    assert after.scale[11] == 0
    assert accuracy(after, root) > accuracy(before, root) + 0.1
    assert report["guard"]["after"] >= report["guard"]["before"] - 0.002


def test_an_adaptation_that_would_cost_the_guard_is_not_made(edit, root):
    """On rows like the training rows the spurious concept helps, so taking it out is refused."""
    status, report, _ = edit(
        "--adapt", root / "few.safetensors", "--guard", root / "source.safetensors", "--epsilon", 0
    )
    assert status == 0
    assert report["guard"]["after"] >= report["guard"]["before"]
    assert report["adaptation"]["refused"] > 0


def test_scaling_by_one_changes_no_prediction_and_by_zero_switches_off(edit, root):
    before, _ = load(root / "m.safetensors")
    x, _ = spurious(4, 0.05)
    assert edit("--scale", "concept l=1")[0] == 0
    assert np.array_equal(load(root / "e.safetensors")[0].logits(x), before.logits(x))
    assert edit("--scale", "concept l=0")[0] == 0
    assert not load(root / "e.safetensors")[0].concepts(x)[:, 11].any()


@pytest.mark.parametrize(("words", "said"), [
    ((), "nothing to edit"),
    (("--prune", "boat"), "not CLASS:CONCEPT"),
    (("--prune", "goat:concept l"), "did you mean 'boat'"),
    (("--prune", "boat:concept z"), "no concept"),
    (("--scale", "concept l=x"), "not CONCEPT=FACTOR"),
    (("--scale", "concept l=nan"), "not CONCEPT=FACTOR"),
    (("--normalize", "--scale", "concept l=1"), "goes with --prune"),
    (("--drop-residual",), "no residual"),
])  # fmt: skip
def test_a_wrong_edit_says_what_to_do(edit, words, said):
    status, _, err = edit(*words)
    assert status == 2
    assert said in err


def test_a_pipe_of_edits_ends_in_a_score(root, run):
    first = run("cbm-edit", root / "m.safetensors", "--prune", "*:concept l")
    assert first.returncode == 0, first.stderr
    second = run("eval", "-", "--data", root / "target.safetensors", data=first.stdout)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["accuracy"]["value"] > 0.5
