"""bntools data-dim as a user meets it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bntools import cli

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-data-dim.1"


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def npy(points) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, points)
    return buffer.getvalue()


@pytest.fixture
def inside(capsys):
    """Run in this process: exit code, standard output and standard error."""

    def call(*words):
        status = cli.run(["data-dim", *map(str, words)])
        return status, *capsys.readouterr()

    return call


def paths(value: object, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {p for key, inner in value.items() for p in paths(inner, f"{prefix}.{key}" if prefix else key)}


@pytest.mark.slow
def test_every_form_of_input_gives_the_same_report_with_the_documented_keys(
    run, inside, points, npy, tmp_path
):
    save_file({"a": torch.from_numpy(points), "b": torch.ones(30)}, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", points)
    piped = run("data-dim", "--estimator", "all", "--plot", tmp_path / "s.svg", data=npy)
    assert piped.returncode == 0, piped.stderr
    report = json.loads(piped.stdout)
    assert report["kind"] == "data-dim"
    low, value, high = (report["dimension"][key] for key in ("low", "value", "high"))
    capped = "above-features" in {warning["name"] for warning in report["warnings"]}
    assert low < value <= high <= report["n_features"]
    assert (value == high) == capped, "the ends meet only at the number of coordinates, and then it is said"
    for words in (("x.safetensors", "--tensor", "a"), ("x.npz",)):
        _, out, err = inside(tmp_path / words[0], *words[1:], "--estimator", "all")
        assert out.encode() == piped.stdout, err
    text = (tmp_path / "s.svg").read_text()
    assert "<svg" in text
    assert not list(tmp_path.glob(".s.svg*"))
    page = PAGE.read_text()
    known = {n for line in re.findall(r"^\.It Li (.+)$", page, re.MULTILINE) for n in re.split("[ ,]+", line)}
    flat = {p for p in paths(report) if not p.startswith("estimators.")}
    assert flat <= known
    assert all(name in page for name in report["estimators"])


def test_a_dry_run_computes_nothing(inside, npy, tmp_path):
    (tmp_path / "x.npy").write_bytes(npy)
    plan = json.loads(inside(tmp_path / "x.npy", "--dry-run")[1])
    assert (plan["kind"], plan["points"], plan["features"]) == ("plan", 200, 3)


@pytest.mark.parametrize(
    ("data", "code", "what"),
    [
        (b'{"kind": "eval"}', 3, "JSON report"),
        (b"1,2,3\n4,5,6\n", 3, "neither safetensors, .npy nor .npz"),
        (b"\x93NUMPY" + bytes(80), 3, "no readable numpy file"),
        (b"PK\x03\x04" + bytes(80), 3, "no readable numpy file"),
    ],
    ids=["report", "text", "npy", "npz"],
)
def test_what_holds_no_points_is_refused(inside, tmp_path, data, code, what):
    (tmp_path / "x").write_bytes(data)
    status, out, err = inside(tmp_path / "x")
    assert (status, out) == (code, "")
    assert what in err
    assert "Traceback" not in err


def test_an_empty_pipe_is_refused(run):
    done = run("data-dim", data=b"")
    assert (done.returncode, done.stdout) == (3, b"")
    assert "no data on standard input" in done.stderr


def test_mistakes_are_named_with_a_way_out(inside, points, tmp_path):
    np.savez(tmp_path / "two.npz", x=points, y=points[:, :2])
    for words, code, what in (
        (("two.npz",), 2, "--tensor NAME, of: x, y"),
        (("two.npz", "--tensor", "z"), 2, "no tensor z"),
        (("gone.npy",), 2, "cannot open"),
        ((".",), 2, "is a directory"),
        (("two.npz", "--tensor", "x", "--plot", "a.gif"), 2, "no picture format"),
    ):
        status, out, err = inside(tmp_path / words[0], *words[1:])
        assert (status, out) == (code, ""), err
        assert what in err
    np.save(tmp_path / "o.npy", np.array([{}, 1], object), allow_pickle=True)
    assert inside(tmp_path / "o.npy")[0] == 3
