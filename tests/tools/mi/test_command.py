"""bntools mi as a user calls it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from bntools.tools.mi.bench import bench
from bntools.tools.mi.rank import rank
from bntools.tools.mi.selftest import selftest
from bntools.tools.mi.tasks import tasks


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mi")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 3)).astype(np.float32)
    y = (x[:, :2] + rng.standard_normal((600, 2))).astype(np.float32)
    save_file({"x": x, "label": (x[:, 0] > 0).astype(np.int64)}, folder / "x.safetensors")
    save_file({"x": y}, folder / "y.safetensors")
    np.save(folder / "short.npy", y[:500])
    bad = y.copy()
    bad[7] = np.nan
    np.save(folder / "bad.npy", bad)
    np.save(folder / "half.npy", y.astype(np.float16))
    return folder


def test_a_pair_of_files_gives_one_report(run, files):
    done = run("mi", files / "x.safetensors", files / "y.safetensors")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kind"] == "mi"
    assert report["low"] <= report["value"] <= report["high"] <= report["cap"]
    assert report["baseline"]["permuted"] < 0.1
    assert {"ksg", "gaussian", "t-copula", "corrected", "reference"} == set(report["estimators"])


def test_labels_are_a_column_of_the_file(run, files):
    done = run("mi", files / "x.safetensors", f"{files}/x.safetensors:label", "--units", "bits")
    report = json.loads(done.stdout)
    assert report["estimator"] == "ross"
    assert report["units"] == "bits"
    assert report["cap"] <= 1


def test_half_precision_and_streams_are_read(run, files):
    data = (files / "x.safetensors").read_bytes()
    done = run("mi", "-", files / "half.npy", data=data)
    assert json.loads(done.stdout)["rows"] == 600


@pytest.mark.parametrize(
    ("second", "code", "words"),
    [("short.npy", 3, "500"), ("bad.npy", 3, "NaN"), ("none.npy", 2, "none.npy")],
)
def test_sides_that_do_not_fit_are_refused(run, files, second, code, words):
    done = run("mi", files / "x.safetensors", files / second)
    assert done.returncode == code
    assert words in done.stderr


def test_bad_rows_are_dropped_on_both_sides_when_asked(run, files):
    done = run("mi", files / "x.safetensors", files / "bad.npy", "--drop-bad")
    report = json.loads(done.stdout)
    assert (report["rows"], report["dropped"]) == (599, 1)
    assert "1 rows" in done.stderr


def test_no_second_side_is_a_usage_error(run, files):
    done = run("mi", files / "x.safetensors")
    assert done.returncode == 2
    assert "no Y" in done.stderr


def test_a_plan_estimates_nothing(run, files):
    done = run("mi", files / "x.safetensors", files / "y.safetensors", "--dry-run")
    assert json.loads(done.stdout)["kind"] == "plan"


def test_a_failing_estimator_has_no_vote(run, files):
    done = run("mi", files / "x.safetensors", files / "y.safetensors", "--selftest")
    report = json.loads(done.stdout)
    failing = {name for name, entry in report["selftest"].items() if not entry["passed"]}
    assert failing
    assert not failing & set(report["votes"])


def test_an_estimator_that_a_monotone_map_moves_fails_invariance():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1500, 1))
    found = selftest(x, x + 0.3 * rng.standard_normal((1500, 1)), names=("t-copula", "gaussian"))
    assert found["t-copula"]["tests"]["invariance"]["passed"]
    assert not found["gaussian"]["tests"]["invariance"]["passed"]


def test_columns_are_ranked_by_what_they_tell():
    rng = np.random.default_rng(1)
    a, b, c = rng.standard_normal((3, 800))
    y = np.sign(a) * np.abs(a) ** 3 + 0.3 * b
    found = rank(np.column_stack([c, b, a, y]), ["c", "b", "a", "y"], "y")
    assert found[0]["name"] == "a"
    assert found[0]["value"] > found[0]["permuted"] + 0.1


def test_a_missing_value_costs_its_pair_only():
    rng = np.random.default_rng(1)
    a = rng.standard_normal(300)
    b = a + rng.standard_normal(300)
    a[3] = np.nan
    assert rank(np.column_stack([a, b]), ["a", "b"], "b")[0]["rows"] == 299


def test_the_forty_tasks_have_the_published_truths():
    truths = sorted(round(task.truth, 3) for task in tasks())
    assert len(truths) == 40
    assert truths.count(0.413) == 7
    assert truths.count(1.022) == 16
    for value in (1.709, 0.333, 0.294, 0.593, 1.292, 1.624):
        assert truths.count(value) == 1


@pytest.mark.slow
def test_the_error_on_the_forty_tasks_is_a_third_of_neighbours_alone():
    found = bench(2000, 1)
    errors = found["mean_absolute_error"]
    assert errors["value"] < 0.06
    assert errors["value"] < errors["ksg"] / 3
    assert found["above_cap"] == 0
