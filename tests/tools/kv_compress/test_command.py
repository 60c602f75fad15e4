"""bntools kv-compress and eval --kv as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from bntools import cli

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-kv-compress.1"
SMALL = ("--context", "128", "--calib-tokens", "512")


@pytest.fixture
def inside(capsys):
    """Run in this process: exit code, standard output and standard error."""

    def call(*words):
        status = cli.run([*map(str, words)])
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("kv") / "plan.json"
    assert cli.run(["kv-compress", "default:", "--bits", "3", *SMALL, "-q", "-o", str(path)]) == 0
    return path


def test_a_plan_is_scored_beside_baselines_with_the_documented_keys(inside, plan):
    status, out, err = inside(
        "eval", "default:", "--kv", plan, "--window", "128", "--tokens", "512", "--json"
    )
    assert status == 0, err
    report = json.loads(out)
    assert report["kind"] == "kv-eval"
    assert report["bits_per_value"] < 3.5  # other text than the plan's, and shorter than its context
    assert report["bits_per_value"] < report["baselines"]["kivi 2-bit"]["bits_per_value"]
    assert report["kl"] < report["baselines"]["kivi 2-bit"]["kl"]
    assert report["copy_nll"]["mean"] > 0
    page = PAGE.read_text(encoding="utf-8")
    for key in report:
        assert re.search(rf"\b{key}\b", page), key
    facts = json.loads(plan.read_text())
    for key in facts:
        assert key in page, key


def test_a_prompt_is_stored_and_described(inside, plan, tmp_path):
    text = tmp_path / "long.txt"
    text.write_text("It was the wind that woke them, and the sea was white under the moon. " * 12)
    target = tmp_path / "prompt.kv.safetensors"
    status, out, err = inside("kv-compress", "default:", "--plan", plan, "--text", text, "-o", target)
    assert status == 0, err
    manifest = json.loads(out)
    assert manifest["kind"] == "kv-cache"
    assert target.stat().st_size == manifest["bytes"]
    with safe_open(target, "pt") as file:
        assert len(file.get_tensor("tokens")) > 100
    status, out, err = inside("info", target, "--json")
    assert status == 0, err
    assert json.loads(out)["facts"]["tokens"] > 100
    status, out, err = inside("info", plan.with_suffix(".safetensors"), "--json")
    assert json.loads(out)["facts"]["bits"] == pytest.approx(3, abs=0.03)


@pytest.mark.parametrize("method", ["zipvl", "zipvl-evict", "h2o", "snapkv", "pyramidkv", "streaming"])
def test_a_baseline_is_planned_and_scored(inside, tmp_path, method):
    path = tmp_path / "plan.json"
    status, _, err = inside("kv-compress", "default:", "--method", method, "-q", "-o", path)
    assert status == 0, err
    status, out, err = inside(
        "eval", "default:", "--kv", path, "--window", "128", "--tokens", "128", "--json"
    )
    assert status == 0, err
    report = json.loads(out)
    assert report["method"] == method
    assert 0 < report["bits_per_value"] <= 16
    assert report["kl"] >= 0


def test_the_fewest_bits_that_hold_a_divergence_hold_it(inside, tmp_path):
    path = tmp_path / "plan.json"
    status, _, err = inside("kv-compress", "default:", "--max-kl", "0.02", *SMALL, "-q", "-o", path)
    assert status == 0, err
    facts = json.loads(path.read_text())
    assert 0.5 * 0.02 < facts["predicted_kl"] <= 0.02


def test_bytes_and_context_are_bits(inside, tmp_path):
    path = tmp_path / "plan.json"
    size = int(3 * 4 * 2 * 32 * 128 / 8)  # three bits of 4 layers of one head of 32
    status, _, err = inside("kv-compress", "default:", "--bytes", size, *SMALL, "-q", "-o", path)
    assert status == 0, err
    assert json.loads(path.read_text())["bits"] == pytest.approx(3, abs=0.03)


def test_a_gate_fails_where_the_divergence_is_over_it(inside, plan):
    status, _, err = inside(
        "eval", "default:", "--kv", plan, "--window", "128", "--tokens", "128", "--max-kl", "1e-9"
    )
    assert status == 4
    assert "--max-kl" in err


def test_a_dry_run_writes_nothing(inside, tmp_path):
    path = tmp_path / "plan.json"
    status, out, _ = inside("kv-compress", "default:", "--bits", "2", "--dry-run", "--json", "-o", path)
    assert status == 0
    assert json.loads(out)["kind"] == "plan"
    assert not path.exists()


@pytest.mark.parametrize(("words", "code", "what"), [
    (["--bits", "0.05"], 2, "not within"),
    (["--bits", "17"], 2, "not within"),
    ([], 2, "one of them"),
    (["--bits", "2", "--max-kl", "0.1"], 2, "one of them"),
    (["--method", "rotated", "--bits", "2.5"], 2, "whole bits"),
    (["--bits", "2", "--calib", "SHORT"], 3, "tokens"),
    (["--max-kl", "1e-12", *SMALL, "--code", "fixed", "--exact", "0"], 4, "max-kl"),
    (["--plan", "plan.json"], 2, "--text"),
    (["--bits", "2", "--exact", "most"], 2, "auto"),
])  # fmt: skip
def test_what_cannot_be_done_is_said(inside, tmp_path, words, code, what):
    short = tmp_path / "short.txt"
    short.write_text("Call me Ishmael. ")
    words = [str(short) if word == "SHORT" else word for word in words]
    status, _, err = inside("kv-compress", "default:", *words, "-q", "-o", tmp_path / "x.json")
    assert status == code, err
    assert what in err
    assert not (tmp_path / "x.json").exists()


def test_an_encoder_has_no_cache(inside, tmp_path):
    from conftest import make_model

    make_model("bert", tmp_path / "bert")
    status, _, err = inside("kv-compress", tmp_path / "bert", "--bits", "2", "-q", "-o", tmp_path / "x.json")
    assert status == 3, err


def test_a_plan_that_is_none_is_refused(inside, tmp_path, plan):
    broken = tmp_path / "x.json"
    broken.write_text('{"kind": "eval"}')
    assert inside("eval", "default:", "--kv", broken)[0] == 3
    alone = tmp_path / "plan.json"
    alone.write_text(plan.read_text())
    status, _, err = inside("eval", "default:", "--kv", alone)
    assert status == 3
    assert "beside" in err
    assert inside("eval", "default:", "--kv", tmp_path / "none.json")[0] == 2
    assert inside("eval", "default:", "--kv", plan, "--curve", "4")[0] == 2
