"""Regression through a bottleneck: it learns, it compresses, it is compared, and what is written scores the same."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from bntools.core.datasets.tables import open_table
from bntools.core.errors import BnError
from bntools.core.information import bottleneck_regression
from bntools.tools.ib_analyze.regression.design import read_rows
from bntools.tools.ib_analyze.regression.objectives import METHODS
from bntools.tools.ib_analyze.regression.report import report
from bntools.tools.ib_analyze.regression.settings import Regressing, parse_betas, parse_width
from bntools.tools.ib_analyze.regression.train import information, sweep, train

QUICK = Regressing(betas=(0.01,), epochs=2)


def _data(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """y is a curved function of two of five columns, with a tenth of its spread as noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 5))
    y = 3 * np.tanh(x[:, 0]) + x[:, 1] ** 2 + 0.2 * rng.standard_normal(rows)
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "data.safetensors"
    save_file(_data(400), path)
    return path


@pytest.fixture(scope="module")
def rows(table):
    with open_table(str(table)) as opened:
        return read_rows(opened, "y", 0)


@pytest.fixture(scope="module")
def fitted(run, table, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    words = ["--beta", "0.001,0.1", "--train-epochs", 4, "--plot", path.with_suffix(".png")]
    done = run("ib-analyze", "--train", "cs-ib", table, "-o", path, *words)
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


def test_rows_of_the_three_parts_are_all_rows_once(rows):
    together = np.concatenate([rows.train, rows.validation, rows.test])
    assert sorted(together.tolist()) == list(range(400))
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (256, 64, 80)
    assert len(rows.names) == 5


@pytest.mark.parametrize("norm", ["paper", "repo"])
def test_cs_ib_explains_most_of_a_curved_outcome(rows, norm):
    model = train(rows, replace(QUICK, epochs=60, norm=norm), "cs-ib", beta=0.001)
    scores = bottleneck_regression.scores(model, rows.x[rows.test], rows.y[rows.test])
    spread = rows.y[rows.test].std()
    assert scores["rmse"]["mean"] < 0.5 * spread, "three quarters of the variance; the noise is a hundredth"
    assert scores["fgsm"][0]["mean"] == pytest.approx(scores["rmse"]["mean"])
    assert scores["fgsm"][-1]["mean"] > scores["rmse"]["mean"]


def test_the_two_norms_train_differently(rows):
    weights = [
        train(rows, replace(QUICK, norm=norm), "cs-ib", beta=0.0).network.mean.weight
        for norm in ("paper", "repo")
    ]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("method", ["cs-ib", "hsic"])
def test_a_heavy_weight_compresses(rows, method):
    light, heavy = (
        information(train(rows, replace(QUICK, epochs=15), method, beta=beta), rows) for beta in (0.0, 10.0)
    )
    assert heavy < light


def test_every_method_is_in_the_report_beside_the_simplest(rows):
    runs = sweep(rows, QUICK)
    found = report(rows, QUICK, runs)
    assert [entry["method"] for entry in found["runs"]] == list(METHODS)
    assert found["chosen"] == {"method": "cs-ib", "beta": 0.01}
    assert found["runs"][0]["compression"] == 0
    assert found["baseline"]["linear_rmse"] < found["baseline"]["mean_rmse"]
    assert found["warnings"], "after two epochs it is worse than least squares, and says so"


def test_the_same_seed_trains_the_same_network(rows):
    first, second = (train(rows, QUICK, "vib", beta=0.01).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_written_network_scores_the_held_out_rows_as_its_report_says(run, fitted, table):
    path, told = fitted
    assert told["kind"] == "ib-regression-fit"
    done = run("eval", path, "--data", table)
    assert done.returncode == 0, done.stderr
    scored = json.loads(done.stdout)
    own = next(entry for entry in told["runs"] if {k: entry[k] for k in ("method", "beta")} == told["chosen"])
    assert scored["held_out"]
    assert scored["rows"] == told["rows"]["test"]
    assert scored["rmse"]["mean"] == pytest.approx(own["rmse"]["mean"])
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_all_rows_of_another_table_are_scored(run, fitted, tmp_path):
    save_file(_data(120, seed=1), tmp_path / "other.safetensors")
    scored = json.loads(run("eval", fitted[0], "--data", tmp_path / "other.safetensors").stdout)
    assert (scored["rows"], scored["held_out"]) == (120, False)


def test_a_network_goes_down_a_pipe(run, table):
    done = run("ib-analyze", "--train", "cs-ib", table, "--beta", "0.01", "--train-epochs", 1)
    assert done.returncode == 0, done.stderr
    scored = run("eval", "-", "--data", table, data=done.stdout)
    assert json.loads(scored.stdout)["method"] == "cs-ib"


def test_a_table_without_a_column_and_a_damaged_network_are_refused(run, fitted, tmp_path):
    save_file(
        {"x": np.zeros((60, 2), np.float32), "y": np.zeros(60, np.float32)}, tmp_path / "narrow.safetensors"
    )
    done = run("eval", fitted[0], "--data", tmp_path / "narrow.safetensors")
    assert done.returncode == 3
    assert "no column x.2" in done.stderr
    tensors = load_file(fitted[0])
    tensors.pop("network.mean.bias")
    with safe_open(fitted[0], "np") as source:
        save_file(tensors, tmp_path / "damaged.safetensors", source.metadata())
    assert run("eval", tmp_path / "damaged.safetensors", "--data", fitted[0]).returncode == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((60, 2)), "y": np.arange(60.0)}, "no usable column"),
        ({"x": np.random.default_rng(0).random((60, 2)), "y": np.ones(60)}, "on every row"),
        ({"x": np.random.default_rng(0).random((20, 2)), "y": np.arange(20.0)}, "at least 50"),
        ({"x": np.random.default_rng(0).random((60, 2)), "y": np.full(60, np.nan)}, "not a number"),
    ],
)
def test_tables_that_nothing_can_be_learned_from_are_refused(tmp_path, arrays, message):
    save_file(arrays, tmp_path / "t.safetensors")
    with (
        open_table(str(tmp_path / "t.safetensors")) as opened,
        pytest.raises(BnError, match=message) as error,
    ):
        read_rows(opened, "y", 0)
    assert error.value.code == 3


def test_weights_and_widths_are_parsed_or_refused():
    assert parse_betas("0.1,0.01,0.1") == (0.01, 0.1)
    assert parse_width("median") is None
    assert parse_width("1") == 1
    for wrong in ("a", "-1", "nan", "inf", ""):
        with pytest.raises(BnError):
            parse_betas(wrong)
    for wrong in ("a", "0", "nan", "inf"):
        with pytest.raises(BnError):
            parse_width(wrong)
