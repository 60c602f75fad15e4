"""bntools ard-fit as a user meets it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bntools.tools.fetch.obtain import fetch

FAST = ("--epochs", "2", "--restarts", "1", "--no-baseline")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(400, 8))
    np.save(folder / "x.npy", x.astype(np.float32))
    return folder / "x.npy"


@pytest.fixture(scope="module")
def fitted(rows, run):
    path = rows.parent / "vae.safetensors"
    done = run("ard-fit", rows, "--arch", "linear", "-o", path, "--plot", rows.parent / "fit.svg")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "vae"
    assert (rows.parent / "fit.svg").stat().st_size > 1000
    return path


def test_without_an_output_the_report_is_printed(rows, run):
    done = run("ard-fit", rows, *FAST)
    report = json.loads(done.stdout)
    assert report["kind"] == "ard-fit"
    assert report["n_relevant"]["value"] == 2
    assert report["network"]["counts"] == [report["network"]["count"]]


def test_codes_go_down_a_pipe(rows, fitted, run):
    codes = run("ard-fit", "--encode", rows, fitted)
    assert codes.returncode == 0, codes.stderr
    measured = run("data-dim", "-", data=codes.stdout)
    assert json.loads(measured.stdout)["n_features"] == 2


def test_samples_are_drawn_to_a_picture_or_a_file(fitted, run, tmp_path):
    assert run("ard-fit", fitted, "--sample", "9", "--plot", tmp_path / "s.png").returncode == 0
    assert (tmp_path / "s.png").stat().st_size > 1000
    first = run("ard-fit", fitted, "--sample", "5", "-o", tmp_path / "s.safetensors")
    assert json.loads(first.stdout)["kind"] == "samples"
    assert load_file(tmp_path / "s.safetensors")["x"].shape == (5, 8)
    again = run("ard-fit", fitted, "--sample", "5")
    assert torch.equal(load_file(tmp_path / "s.safetensors")["x"], _stream(again.stdout, tmp_path))


def _stream(data, folder):
    (folder / "stream").write_bytes(data)
    return load_file(folder / "stream")["x"]


def test_eval_and_info_know_the_model(rows, fitted, run):
    scores = json.loads(run("eval", fitted, "--data", rows).stdout)
    assert scores["kind"] == "vae-scores"
    assert scores["error"]["pruned"]["mean"] < 0.1 * scores["error"]["none"]["mean"]
    assert "frechet" not in scores
    facts = json.loads(run("info", fitted).stdout)["facts"]
    assert facts["relevant"] == 2
    assert run("eval", fitted, "--data", rows, "--set", "k=3").returncode == 2
    assert run("eval", fitted).returncode == 2


def test_sprites_are_scored_by_their_factors(run, tmp_path):
    fetch("sprites", tmp_path / "sprites")
    every = load_file(tmp_path / "sprites" / "sprites.safetensors")
    save_file({name: tensor[::25].clone() for name, tensor in every.items()}, tmp_path / "few.safetensors")
    done = run("ard-fit", tmp_path / "few.safetensors", "--max-dim", "4", "--epochs", "1", "--restarts", "1",
               "--no-baseline", "-q", "-o", tmp_path / "m.safetensors")  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = json.loads(
        run("eval", tmp_path / "m.safetensors", "--data", tmp_path / "few.safetensors").stdout
    )
    assert scores["disentanglement"]["factors"] >= 3
    assert scores["frechet"]["floor"]["mean"] < scores["frechet"]["mixture"]
    assert set(scores["disentanglement"]["code"]) == set(scores["disentanglement"]["pca"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["missing.npy"], 2, "missing.npy"),
        (["ROWS", "--decoder-var", "-1"], 2, "--decoder-var"),
        (["ROWS", "--from-prior"], 2, "--sample"),
        (["ROWS", "--sample", "3"], 3, "numpy array"),
        (["FIT", "--encode", "FIT", "--sample", "3"], 2, "one of them"),
        (["ROWS", "--max-dim", "20"], 2, "--max-dim 8"),
        (["ROWS", "--plot", "x.txt"], 2, "picture"),
        (["ROWS", "-o", "FIT"], 2, "exists"),
    ],
)
def test_mistakes_are_named(rows, fitted, run, words, code, message):
    done = run("ard-fit", *({"ROWS": rows, "FIT": fitted}.get(word, word) for word in words))
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") <= 3


def test_codes_of_rows_of_another_width_are_refused(fitted, run, tmp_path):
    np.save(tmp_path / "y.npy", np.zeros((5, 3), np.float32))
    done = run("ard-fit", "--encode", tmp_path / "y.npy", fitted)
    assert done.returncode == 3
    assert "[3]" in done.stderr


def test_a_plan_says_what_it_costs(rows, run):
    plan = json.loads(run("ard-fit", rows, "--dry-run").stdout)
    assert plan["runs"] == 4
    assert plan["steps"] == plan["epochs"] * 4 * 3
