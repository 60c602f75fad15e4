"""scale-fit as used in a shell: lines in, a report out, and what happens to what is no run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bntools import cli

POINTS = Path(__file__).with_name("chinchilla.jsonl")
MAN = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-scale-fit.1"
FEW = ("--bootstrap", 60)


def rows(count=20, **more):
    random = np.random.default_rng(0)
    n, d = 10 ** random.uniform(7, 10, count), 10 ** random.uniform(9, 11.5, count)
    loss = (1.69 + 406.4 * n**-0.34 + 410.7 * d**-0.28) * np.exp(0.002 * random.normal(size=count))
    return [
        {"N": float(a), "D": float(b), "loss": float(c)} | more for a, b, c in zip(n, d, loss, strict=True)
    ]


def lines(values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("BNTOOLS_DEBUG", raising=False)


def fit(run, *words, data=None):
    done = run("scale-fit", *words, *FEW, data=data)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def inside(tmp_path, capsys):
    """Run in this process: exit code, standard output and standard error."""

    def call(data, *words):
        (tmp_path / "runs.jsonl").write_bytes(data)
        status = cli.run(["scale-fit", str(tmp_path / "runs.jsonl"), *map(str, words)])
        return status, *capsys.readouterr()

    return call


def paths(value: object, prefix: str = "") -> Iterator[str]:
    """Dotted paths of the leaves of a report; lists are leaves."""
    if not isinstance(value, dict):
        yield prefix
        return
    for key, inner in value.items():
        yield from paths(inner, f"{prefix}.{key}" if prefix else key)


def test_a_file_and_a_pipe_give_the_same_report(run, tmp_path):
    (tmp_path / "r.jsonl").write_bytes(lines(rows()))
    from_file = run("scale-fit", tmp_path / "r.jsonl", *FEW)
    assert from_file.returncode == 0, from_file.stderr
    assert run("scale-fit", *FEW, data=lines(rows())).stdout == from_file.stdout
    assert run("scale-fit", "-", *FEW, "--threads", 1, data=lines(rows())).stdout == from_file.stdout
    assert run("scale-fit", "-", *FEW, "--seed", 5, data=lines(rows())).stdout != from_file.stdout


@pytest.mark.slow
def test_every_key_of_a_report_is_documented_and_the_promised_ones_are_there(run, tmp_path):
    torch.manual_seed(0)
    save_file({"h": torch.randn(200, 100)}, tmp_path / "h.safetensors")
    words = (
        "--compute",
        1e22,
        "--predict",
        "N=1e9,D=1e11",
        "--data-dim",
        12,
        "--features",
        tmp_path / "h.safetensors",
    )
    report = fit(run, POINTS, *words)
    text = MAN.read_text().partition("\n.Sh JSON OUTPUT\n")[2].partition("\n.Sh ")[0]
    items = {
        name
        for line in re.findall(r"^\.It Li (.+)$", text, re.MULTILINE)
        for name in re.split(r"[ ,]+", line)
    }
    named = {
        re.sub(r"^(parameters|regime)\.(alpha|beta|A|B|E)\b", r"\1.NAME", path) for path in paths(report)
    }
    assert named <= items
    words_of_page = set(re.split(r"[\s,.]+", text))
    for entry in (*report["warnings"], *report["compute_optimal"]["allocations"], *report["predictions"]):
        assert set(entry) <= words_of_page
    kaplan = fit(run, POINTS, "--law", "kaplan")
    assert {"N_c", "D_c"} == set(kaplan["parameters"]) - set(report["parameters"])
    for name in ("alpha", "beta", "A", "B", "E"):
        value = report["parameters"][name]
        assert value["low"] <= value["value"] <= value["high"]
    assert report["kind"] == "scale-fit"
    assert report["runs"] == 245
    assert report["warnings"][0]["lines"][:4] == [2, 1, 4, 3]


def test_columns_by_other_names_and_compute_for_data(run):
    plain = fit(run, data=lines(rows()))
    other = [{"params": r["N"], "flops": 6 * r["N"] * r["D"], "val": r["loss"], "note": "x"} for r in rows()]
    named = fit(run, "--columns", "N=params,C=flops,loss=val", data=lines(other))
    assert named["parameters"]["alpha"]["value"] == pytest.approx(
        plain["parameters"]["alpha"]["value"], rel=1e-4
    )


GOOD = rows(8)
BAD = [
    (b"nonsense", "not JSON"), (b"[1, 2]", "not a JSON object"), (b'{"N": 1, "D": 2}', "no key 'loss'"),
    (b'{"loss": 2, "N": 5}', "no key 'D'"), (b'{"N": "1e9", "D": 1, "loss": 2}', "not a number"),
    (b'{"N": true, "D": 1, "loss": 2}', "not a number"), (b'{"N": 0, "D": 1, "loss": 2}', "above 0"),
    (b'{"N": 1, "D": 1, "loss": NaN}', "finite"), (b'{"N": 1, "D": 1e999, "loss": 2}', "finite"),
    (b'{"N": 1, "D": ' + b"9" * 400 + b', "loss": 2}', "finite"), (b"\xff\xfe", "UTF-8"),
    (b"[" * 100_000, "recursion"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_named_with_its_number_and_reason(inside, line, reason):
    status, out, errors = inside(lines(GOOD[:3]) + b"\n" + line + b"\n" + lines(GOOD[3:]))
    assert (status, out) == (3, "")
    assert "line 5" in errors
    assert reason in errors
    assert "--skip-bad" in errors


def test_all_bad_lines_can_be_skipped_and_are_named(run):
    data = lines(GOOD[:3]) + b"\n".join(line for line, _ in BAD) + b"\n" + lines(GOOD[3:])
    done = run("scale-fit", "--skip-bad", *FEW, data=data)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["runs"], report["skipped"]) == (8, len(BAD))
    for number, (_, reason) in enumerate(BAD, 4):
        assert re.search(rf"line {number} skipped: .*{reason}", done.stderr), done.stderr
    assert report["parameters"]["alpha"]["value"] == pytest.approx(
        fit(run, data=lines(GOOD))["parameters"]["alpha"]["value"], rel=1e-6
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--columns", "N:params"), 2, "--columns"),
        (("--predict", "N=1e9"), 2, "lacks D"),
        (("--predict", "N=1e9,D=-1"), 2, "D=-1"),
        (("--predict", "Q=1"), 2, "Q=1"),
        (("--law", "power", "--compute", "1e20"), 2, "--compute"),
        (("--data-dim", "-3"), 2, "--data-dim"),
        (("--data-dim", "nowhere.json"), 2, "nowhere.json"),
        (("--plot", "fit.gif"), 2, "no picture format"),
        (("--plot", "/nowhere/fit.svg"), 2, "/nowhere"),
        (("--tensor", "h"), 2, "--features"),
        (("--features", "nowhere.safetensors"), 2, "nowhere"),
        (("--level", "1.5"), 2, "--level"),
        (("--law", "linear"), 2, "--law"),
    ],
)
def test_wrong_options_are_refused_with_what_is_wrong(inside, words, code, said):
    status, out, errors = inside(lines(GOOD), *words)
    assert (status, out) == (code, ""), errors
    assert said in errors
    assert errors.count("\n") <= 2


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"", 3, "no runs"),
        (lines(GOOD[:4]), 3, "4 runs cannot fix 5 parameters"),
        (lines([{"N": 5, "loss": 2 + i} for i in range(9)]), 2, "one point"),
        (lines([{"x": 5, "loss": 2}]), 3, "none of the keys"),
    ],
)
def test_runs_that_cannot_be_fitted_are_refused(inside, data, code, said):
    status, out, errors = inside(data)
    assert (status, out) == (code, ""), errors
    assert said in errors


def test_no_input_and_a_missing_file_are_usage_errors(run, tmp_path):
    assert run("scale-fit").returncode == 2
    assert cli.run(["scale-fit", str(tmp_path / "none.jsonl")]) == 2
    assert cli.run(["scale-fit", str(tmp_path)]) == 2


def test_a_report_of_data_dim_decides_the_regime(run, tmp_path):
    report = {"kind": "data-dim", "dimension": {"value": 12.0, "low": 11.0, "high": 13.0}}
    (tmp_path / "dim.json").write_text(json.dumps(report))
    found = fit(run, "--data-dim", tmp_path / "dim.json", data=lines(rows()))["regime"]
    assert found["data_dimension"] == report["dimension"]
    assert found["alpha"]["label"] == "resolution-limited"
    (tmp_path / "dim.json").write_text('{"kind": "eval"}')
    done = run("scale-fit", "--data-dim", tmp_path / "dim.json", data=lines(rows()))
    assert done.returncode == 3


def test_a_dry_run_fits_and_writes_nothing(run, tmp_path):
    done = run("scale-fit", "--dry-run", "--plot", tmp_path / "fit.svg", data=lines(rows()))
    plan = json.loads(done.stdout)
    assert (plan["kind"], plan["law"], plan["runs"]) == ("plan", "chinchilla", 20)
    assert 0 < plan["seconds"] < 10
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_picture_is_written_whole_and_kept_without_force(run, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    target = tmp_path / "fit.svg"
    fit(run, "--plot", target, data=lines(rows()))
    first = target.read_bytes()
    assert first.startswith(b"<?xml")
    done = run("scale-fit", "--plot", target, data=lines(rows()))
    assert done.returncode == 2
    assert "--force" in done.stderr
    fit(run, "--plot", target, "--force", data=lines(rows()))
    assert target.read_bytes() == first
    assert os.listdir(tmp_path) == ["fit.svg"]


@pytest.mark.slow
def test_an_interrupt_ends_a_long_bootstrap_at_once(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(lines(rows(3000)))
    command = [
        sys.executable,
        "-m",
        "bntools",
        "scale-fit",
        str(tmp_path / "r.jsonl"),
        "--bootstrap",
        "100000",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(5)
    assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert b"Traceback" not in errors
    assert time.monotonic() - began < 20


def test_the_library_is_one_import_and_help_loads_none_of_it():
    code = "from bntools.tools.scale_fit import Settings, fit_report, fit_scaling_law, training_runs"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, bntools.tools.scale_fit.command; assert not {'numpy', 'torch', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
