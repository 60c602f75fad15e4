"""The command as a stranger meets it: files, pipes, parts, wrong input."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from bntools import cli
from bntools.core.artifact.reader import open_path
from bntools.core.datasets.tables import open_table
from bntools.core.methods.embedding import stored

FAST = ["--lambda", "30", "--epochs", "3", "--dim", "8", "--batch", "128", "-q"]


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "clicks.csv"
    user, item = np.minimum(rng.zipf(1.4, 1500), 60), np.minimum(rng.zipf(1.4, 1500), 90)
    logit = rng.standard_normal(61)[user] + rng.standard_normal(91)[item]
    y = (rng.random(1500) < 1 / (1 + np.exp(-logit))).astype(int)
    lines = [
        f"u{u},{i},{'x' if i % 2 else ''},{1 + 4 * c},{c}" for u, i, c in zip(user, item, y, strict=True)
    ]
    path.write_text("user,item,tag,stars,click\n" + "\n".join(lines) + "\n")
    return path


def run(capsys, *words):
    code = cli.run([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def fit(capsys, clicks, *words):
    code, out, err = run(
        capsys, "embed-fit", clicks, "--target", "click", "--fields", "user,item,tag", *FAST, *words
    )
    assert code == 0, err
    return json.loads(out)


def test_a_sweep_reports_each_method_against_the_full_table(capsys, clicks, tmp_path):
    report = fit(capsys, clicks, "--method", "unified,hash,spectral", "--budget", "1/2..1/4",
                 "--pareto", tmp_path / "p.png")  # fmt: skip
    assert report["kind"] == "embed-fit"
    assert [(r["method"], r["budget"]) for r in report["results"]] == [
        (m, b) for m in ("unified", "hash", "spectral") for b in (0.5, 0.25)
    ]
    for row in report["results"]:
        assert row["share"] <= row["budget"] + 1e-9
        assert set(row["change"]) == {"mean", "se"}
    assert report["baseline"]["small_full"]["d"] == 1
    unified = report["results"][0]["collisions"]
    assert unified["intra"]["expected"] == pytest.approx(unified["intra"]["mass"], rel=1)
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_bytes_that_are_reported_are_bytes_on_disk(capsys, clicks, tmp_path):
    path = tmp_path / "t.safetensors"
    report = fit(capsys, clicks, "-o", path)
    assert report["path"] == str(path)
    with open_path(path) as source:
        table = stored.read(source)
        assert source.header.data_bytes == sum(table.nbytes().values())
        assert os.path.getsize(path) == report["bytes"]
    assert table.nbytes()["embedding"] == report["results"][0]["bytes"]["embedding"]


@pytest.mark.parametrize("method", ["full", "spectral", "unified", "hash", "robe", "qr", "tt", "dhe", "dnis"])
def test_an_exported_module_agrees_without_bntools(capsys, clicks, tmp_path, monkeypatch, method):
    path, folder = tmp_path / "t.safetensors", tmp_path / f"module_{method}"
    room = ("--budget", "1", "--dim", "16") if method == "dhe" else ("--budget", "1/2")
    fit(capsys, clicks, "--method", method, *room, "-o", path)
    code, _, err = run(capsys, "export", path, "-o", f"{folder}/")
    assert code == 0, err
    assert "bntools" not in (folder / "module.py").read_text().replace("bntools export", "")
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("module", None)
    model = importlib.import_module("module").load(folder)
    rows = {"user": ["u1", "u2", "nobody"], "item": [1, 2.0, 10**6], "tag": ["x", "", "y"]}
    from bntools.core.methods.embedding.decode import outputs

    with open_path(path) as source:
        table = stored.read(source)
    expected = outputs(
        table,
        {
            n: np.array([str(int(v)) if not isinstance(v, str) else v for v in c], object)
            for n, c in rows.items()
        },
    )
    with torch.no_grad():
        np.testing.assert_allclose(model(rows).numpy(), expected, atol=1e-6, rtol=1e-5)
    sys.modules.pop("module", None)


def test_eval_scores_rows_with_unseen_values(capsys, clicks, tmp_path):
    path, test = tmp_path / "t.safetensors", tmp_path / "test.csv"
    fit(capsys, clicks, "-o", path, "--epochs", "20")
    lines = clicks.read_text().splitlines()
    test.write_text("\n".join([lines[0], *lines[1:300], "new,77777,z,1,0", "other,1,,1,1"]) + "\n")
    code, out, err = run(capsys, "eval", path, "--data", test)
    assert code == 0, err
    report = json.loads(out)
    assert report["kind"] == "embedding-eval"
    assert report["unseen"]["user"] == pytest.approx(2 / 301)
    assert report["metrics"]["logloss"] < report["baseline"]["logloss"]
    code, out, _ = run(capsys, "info", path)
    assert json.loads(out)["facts"]["fields"]["tag"].endswith("rows")


def test_parts_join_to_the_whole(capsys, clicks, tmp_path):
    words = ["--method", "hash,full", "--budget", "1/4", "--splits", "2"]
    whole = fit(capsys, clicks, *words)
    for part in range(3):
        code, _, err = run(capsys, "embed-fit", clicks, "--target", "click", "--fields", "user,item,tag", *FAST, *words,
                           "--shard", f"{part}/3", "-o", tmp_path / f"{part}.safetensors")  # fmt: skip
        assert code == 0, err
    assert fit(capsys, clicks, *words, "--gather", tmp_path) == whole
    assert whole["results"][0]["change"]["se"] > 0
    assert len(whole["results"][0]["changes"]) == 2


def test_the_same_seed_writes_the_same_bytes_on_one_and_two_threads(capsys, clicks, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    monkeypatch.chdir(tmp_path)
    data = []
    for threads in (1, 2):
        monkeypatch.setattr(sys, "argv", ["bntools", "embed-fit"])
        fit(
            capsys,
            clicks,
            "-f",
            "-o",
            "a.safetensors",
            "--method",
            "spectral",
            "--budget",
            "1/4",
            "--threads",
            threads,
        )
        with open_path(tmp_path / "a.safetensors") as source:
            data.append({name: bytes(source.raw(name)) for name in source.names()})
    assert data[0] == data[1]


def test_safetensors_with_x_and_y_and_a_pipe(capsys, clicks, tmp_path, monkeypatch):
    rng, path = np.random.default_rng(0), tmp_path / "ids.safetensors"
    x = rng.integers(0, 30, (800, 2))
    save_file({"x": x, "y": (x[:, 0] % 2).astype(np.int64)}, str(path))
    code, out, err = run(capsys, "embed-fit", path, "--target", "y", *FAST, "--model", "mf")
    assert code == 0, err
    assert [f["name"] for f in json.loads(out)["fields"]] == ["x.0", "x.1"]
    with open(clicks, "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        old = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            code, out, err = run(capsys, "embed-fit", "-", "--target", "click", *FAST, "--dry-run")
        finally:
            os.dup2(old, 0)
            os.close(old)
    plan = json.loads(out)
    assert plan["kind"] == "plan"
    assert {f["name"]: f["bytes"] for f in plan["fields"]}["user"] == 4 * 8 * {
        f["name"]: f["values"] for f in plan["fields"]
    }["user"]


def test_splits_by_time_by_column_and_by_file(capsys, clicks, tmp_path):
    lines = clicks.read_text().splitlines()
    timed = tmp_path / "timed.csv"
    part = ["train" if i % 10 < 8 else "valid" if i % 10 < 9 else "test" for i in range(len(lines) - 1)]
    more = [f"{x},{1_500_000_000 + i},{p}" for i, (x, p) in enumerate(zip(lines[1:], part, strict=True))]
    timed.write_text("\n".join([lines[0] + ",timestamp,part", *more]) + "\n")
    words = ["embed-fit", timed, "--target", "click", "--fields", "user,item", *FAST]
    code, out, err = run(capsys, *words, "--split", "time:timestamp")
    assert code == 0, err
    assert json.loads(out)["rows"] == {"train": 1200, "valid": 150, "test": 150}
    code, out, err = run(capsys, *words, "--split", "column:part")
    assert json.loads(out)["rows"] == {"train": 1200, "valid": 150, "test": 150}
    code, out, err = run(capsys, *words[:-1], "--split", clicks)
    assert code == 0, err
    assert json.loads(out)["rows"]["test"] == 1500
    assert any("time:timestamp" in note for note in json.loads(out)["notes"]) is False
    code, out, err = run(capsys, *words)
    assert any("time:timestamp" in note for note in json.loads(out)["notes"])


BAD = {
    "missing target": (["--target", "nothing"], 3, "has no column nothing"),
    "not 0/1": (["--target", "stars3"], 3, "is not 0/1"),
    "one class": (["--target", "one"], 3, "one class only"),
    "text target": (["--target", "user"], 3, "holds text"),
    "negative ids": (["--target", "click", "--fields", "user,minus"], 3, "negative ids"),
    "float ids": (["--target", "click", "--fields", "user,float"], 3, "no whole numbers"),
    "unknown field": (["--target", "click", "--fields", "user,nothing"], 2, "no column nothing"),
    "unknown method": (["--target", "click", "--method", "magic"], 2, "no method is named magic"),
    "bad budget": (["--target", "click", "--budget", "2"], 2, "share of the full table"),
    "mf of three": (["--target", "click", "--model", "mf", "--fields", "user,item,tag"], 2, "two fields"),
    "target a field": (["--target", "click", "--fields", "user,click"], 2, "target and a field"),
    "several outputs": (
        ["--target", "click", "--method", "hash,full", "-o", "x.safetensors"],
        2,
        "one table",
    ),
    "ihas output": (
        ["--target", "click", "--method", "ihas", "-o", "x.safetensors"],
        2,
        "measured, not written",
    ),
    "work alone": (["--target", "click", "--work", "w"], 2, "folder of the parts"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_input_is_named(capsys, clicks, tmp_path, case):
    lines = clicks.read_text().splitlines()
    path = tmp_path / "bad.csv"
    more = [f"{x},{i % 3},0,{-(i % 50)},{i / 7}" for i, x in enumerate(lines[1:])]
    path.write_text("\n".join([lines[0] + ",stars3,one,minus,float", *more]) + "\n")
    words, code, text = BAD[case]
    found, _, err = run(capsys, "embed-fit", path, *words)
    assert (found, text in err) == (code, True), err


def test_a_constant_field_is_dropped_and_an_identifier_noted(capsys, tmp_path):
    path = tmp_path / "odd.csv"
    rng = np.random.default_rng(0)
    path.write_text(
        "a,const,row,y\n" + "".join(f"{rng.integers(9)},1,{i},{rng.integers(2)}\n" for i in range(400))
    )
    code, out, err = run(capsys, "embed-fit", path, "--target", "y", *FAST)
    assert code == 0, err
    report = json.loads(out)
    assert [f["name"] for f in report["fields"]] == ["a", "row"]
    assert any("const has one value" in n for n in report["notes"])
    assert any("every row has its own row" in n for n in report["notes"])
    assert report["fields"][1]["coverage"] == 0


def test_a_budget_that_cannot_be_reached_is_told(capsys, clicks):
    report = fit(capsys, clicks, "--method", "qr", "--budget", "1/64")
    assert report["unreachable"] == [{"method": "qr", "budget": 1 / 64}]


def test_missing_values_are_a_value(clicks):
    from bntools.tools.embed_fit.problem import problem, read
    from bntools.tools.embed_fit.settings import Settings

    with open_table(str(clicks)) as table:
        data = read(table, "click", Settings(fields=("user", "tag")))
    one = problem(data, Settings(), 0)
    assert "<missing>" in one.fields[1].values
