"""Tables compressed without data: by artifact, by weight and counts, and what is refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from bntools import cli
from bntools.core.artifact.reader import open_path
from bntools.core.methods.embedding import stored
from bntools.core.methods.embedding.decode import table_of
from bntools.tools.embed_compress.run import embed_compress, foreign


def run(capsys, *words):
    code = cli.run([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def zipf_table(n=3000, d=24):
    rng = np.random.default_rng(0)
    E = (rng.standard_normal((n, d)) * np.geomspace(1, 0.1, d)) @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    return E.astype(np.float32), np.maximum(1e5 / np.arange(1, n + 1), 1)


@pytest.fixture
def checkpoint(tmp_path):
    E, counts = zipf_table()
    save_file({"emb.weight": E, "bias": E[0]}, str(tmp_path / "m.safetensors"))
    np.save(tmp_path / "counts.npy", counts)
    return tmp_path


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_a_weight_with_counts_comes_back_in_its_own_order(capsys, checkpoint, bits):
    words = [
        "--tensor",
        "emb.weight",
        "--counts",
        checkpoint / "counts.npy",
        "--budget",
        "1/4",
        "--bits",
        bits,
    ]
    code, out, err = run(
        capsys, "embed-compress", checkpoint / "m.safetensors", *words, "-o", checkpoint / "s.safetensors"
    )
    assert code == 0, err
    report = json.loads(out)
    E, counts = zipf_table()
    with open_path(checkpoint / "s.safetensors") as source:
        small = stored.read(source)
    back = table_of(small, 0)
    C = E - (counts[:, None] * E).sum(0) / counts.sum()
    error = (counts[:, None] * np.square(back - E)).sum() / (counts[:, None] * np.square(C)).sum()
    assert report["error"] == pytest.approx(error, rel=1e-3)
    assert error < (report["baselines"]["low_rank"] or np.inf)
    size = small.nbytes()
    assert size["embedding"] + size["index"] <= E.size * bits / 8 / 4
    assert os.path.getsize(checkpoint / "s.safetensors") < 1.1 * (size["embedding"] + size["index"]) + 8192


def test_the_error_falls_with_the_budget():
    E, counts = zipf_table()
    errors = [embed_compress(*foreign("e", E, counts), budget)[1]["error"] for budget in (0.1, 0.2, 0.4, 1.2)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-10


def test_the_budget_that_is_too_small_names_the_least(capsys, checkpoint):
    code, _, err = run(capsys, "embed-compress", checkpoint / "m.safetensors", "--tensor", "emb.weight", "--budget",
                       "1/1000", "-o", checkpoint / "s.safetensors")  # fmt: skip
    assert code == 2
    assert "cannot hold the means" in err
    least = err.split("--budget ")[1].split()[0]
    code, _, err = run(capsys, "embed-compress", checkpoint / "m.safetensors", "--tensor", "emb.weight", "--budget",
                       least, "-q", "-o", checkpoint / "s.safetensors")  # fmt: skip
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--tensor", "nothing"], 2, "no tensor nothing"),
        (["--tensor", "bias"], 3, "two dimensions"),
        (["--counts", "counts.npy"], 2, "--counts goes with --tensor"),
        (["--tensor", "emb.weight", "--counts", "short.npy"], 3, "5 counts for 3,000 rows"),
        (["--tensor", "emb.weight", "--counts", "negative.npy"], 3, "0 or more"),
        ([], 3, "not embedding"),
    ],
)
def test_wrong_input_is_named(capsys, checkpoint, monkeypatch, words, code, text):
    monkeypatch.chdir(checkpoint)
    np.save("short.npy", np.ones(5))
    np.save("negative.npy", -np.ones(3000))
    found, _, err = run(capsys, "embed-compress", "m.safetensors", *words, "-o", "s.safetensors")
    assert (found, text in err) == (code, True), err


def test_a_fitted_table_shrinks_without_data_and_still_predicts(capsys, tmp_path):
    rng = np.random.default_rng(1)
    user, item = np.minimum(rng.zipf(1.4, 2000), 80), np.minimum(rng.zipf(1.4, 2000), 80)
    y = (
        rng.random(2000) < 1 / (1 + np.exp(-rng.standard_normal(81)[user] - rng.standard_normal(81)[item]))
    ).astype(int)
    path = tmp_path / "d.csv"
    path.write_text("u,i,y\n" + "".join(f"{a},{b},{c}\n" for a, b, c in zip(user, item, y, strict=True)))
    code, _, err = run(
        capsys, "embed-fit", path, "--target", "y", "--lambda", "30", "-q", "-o", tmp_path / "t.safetensors"
    )
    assert code == 0, err
    code, out, err = run(capsys, "embed-compress", tmp_path / "t.safetensors", "--budget", "1/4", "--bits", "8", "-o",
                         tmp_path / "s.safetensors")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["metric"] is True
    auc = []
    for name in ("t", "s"):
        code, out, err = run(capsys, "eval", tmp_path / f"{name}.safetensors", "--data", path)
        assert code == 0, err
        auc.append(json.loads(out)["metrics"]["auc"]["value"])
    assert abs(auc[0] - auc[1]) < 0.01
    code, _, err = run(capsys, "embed-fit", path, "--target", "y", "--method", "unified", "--lambda", "30", "-q", "-o",
                       tmp_path / "u.safetensors")  # fmt: skip
    code, _, err = run(capsys, "embed-compress", tmp_path / "u.safetensors", "-o", tmp_path / "x.safetensors")
    assert (code, "shared by hashes" in err) == (3, True)


def test_a_table_without_a_head_is_not_scored(capsys, checkpoint):
    run(
        capsys,
        "embed-compress",
        checkpoint / "m.safetensors",
        "--tensor",
        "emb.weight",
        "-q",
        "-o",
        checkpoint / "s.safetensors",
    )
    code, _, err = run(capsys, "eval", checkpoint / "s.safetensors", "--data", checkpoint / "counts.npy")
    assert (code, "without a head" in err) == (2, True)
