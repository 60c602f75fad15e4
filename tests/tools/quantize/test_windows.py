"""Without a text: tokens that the model makes, what that gains, and what is left where it makes none."""

from __future__ import annotations

import json

import pytest
from conftest import make_model
from support.exports import bntools, quantized

from bntools.core.artifact.reader import open_path
from bntools.core.blockwise import sampled_text
from bntools.tools.quantize.cost import probe

NONE = ("--calib", "none")


def told(path):
    with open_path(path) as source:
        return source.report


def divergence(path, capsys):
    capsys.readouterr()
    assert bntools("eval", path, "--tokens", 4096, "--json") == 0
    return json.loads(capsys.readouterr().out)["kl"]["mean"]


def test_made_tokens_diverge_less_than_plain_rounding_and_the_report_says_what_was_made(tmp_path, capsys):
    """0.099 against 0.153 was measured; half of that gain is asked for."""
    grid, found = ("--bits", 3, "--group-size", 64, "-f"), {}
    for tokens in (0, 4096):
        quantized(tmp_path / "q", *grid, *NONE, "--calib-tokens", tokens)
        found[tokens] = divergence(tmp_path / "q", capsys)
        if not tokens:
            assert told(tmp_path / "q")["calibration"] == {"source": "none"}
    assert found[4096] < 0.82 * found[0]
    report = told(tmp_path / "q")
    assert report["calibration"] == {"source": "made", "tokens": 4096, "rounds": sampled_text.PIECE - 1}
    assert (report["settings"]["method"], report["settings"]["search"]) == ("gptq", "weighted")
    assert (report["calib"], report["bits_per_weight"]["linear"]) == ("none", 3.375)


@pytest.mark.parametrize("words", [("--method", "rtn"), ("--grid", "minmax"), ("--balance",)])
def test_a_method_that_is_named_and_needs_no_inputs_gets_none(words, tmp_path):
    quantized(tmp_path / "q", *NONE, *words)
    report = told(tmp_path / "q")
    assert report["calibration"] == {"source": "none"}
    assert report["settings"]["method"] == "rtn"


def test_rounding_without_a_text_is_that_with_the_weights_alone(tmp_path):
    for name, words in (("a", ("--method", "rtn")), ("b", ("--calib-tokens", 0)), ("c", ())):
        quantized(tmp_path / name, *(NONE if name != "c" else ()), *words)
    a, b, c = (_hashes(tmp_path / name) for name in "abc")
    assert a == b == c


def _hashes(path):
    with open_path(path) as source:
        return [(name, source.tensor(name).numpy().tobytes()) for name in source.names() if "/" not in name]


def test_a_seed_and_any_number_of_threads_give_the_same_bytes(tmp_path):
    words = (*NONE, "--bits", 3, "--calib-tokens", 512)
    for name, more in (("a", ("--threads", 1)), ("b", ("--threads", 2)), ("c", ("--seed", 1))):
        quantized(tmp_path / name, *words, *more)
    a, b, c = (_hashes(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c


def test_a_work_folder_keeps_the_tokens(run, tmp_path):
    """In a process each: a folder is locked until its process ends."""
    words = (
        "quantize",
        "default:",
        "-q",
        *NONE,
        "--bits",
        3,
        "--calib-tokens",
        512,
        "--work",
        tmp_path / "w",
    )
    found = []
    for name in "ab":
        done = run(*words, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        (unit,) = (tmp_path / "w").glob("made*")
        found.append((_hashes(tmp_path / name), unit.stat().st_mtime_ns))
    assert found[0] == found[1]
    other = run(*words, "-o", tmp_path / "c", "--seed", 1)
    assert other.returncode == 3
    assert "seed" in other.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--code", "entropy", "--no-compensate", "--bits", 3),
        ("--scales", 2, "--budget", 3.25),
        ("--method", "gptq", "--dim", "ada"),
        ("--method", "rtn", "--grid", "weighted"),
    ],
)
def test_other_methods_calibrate_on_made_tokens_too(words, tmp_path):
    quantized(tmp_path / "q", *NONE, *words, "--calib-tokens", 512, "--include", "layers.0.mlp")
    assert told(tmp_path / "q")["calibration"]["source"] == "made"


def test_an_encoder_is_rounded_and_the_report_says_why(tmp_path, capsys):
    make_model("bert", tmp_path / "m")
    quantized(tmp_path / "q", *NONE, "--scales", 2, source=tmp_path / "m")
    report = told(tmp_path / "q")
    assert report["calibration"]["source"] == "none"
    assert "bert is no causal language model" in report["calibration"]["reason"]
    assert report["settings"]["method"] == "rtn"
    capsys.readouterr()
    words = ("quantize", tmp_path / "m", "-q", "-o", tmp_path / "no", *NONE, "--method", "gptq")
    assert bntools(*words) == 2
    assert "--method gptq needs a calibration text: bert is no causal" in capsys.readouterr().err


def test_the_plan_names_the_tokens_and_their_time(capsys, monkeypatch):
    """At a rate that is told, not measured, and so slow that the tokens are nearly all of the time."""
    monkeypatch.setattr(probe, "product_rate", lambda: 1e6)
    plans = []
    for tokens in (512, 8192):
        assert bntools("quantize", "default:", *NONE, "--calib-tokens", tokens, "--dry-run", "--json") == 0
        plans.append(json.loads(capsys.readouterr().out))
    assert [plan["calibration"]["tokens"] for plan in plans] == [512, 8192]
    assert plans[0]["calibration"]["source"] == "made"
    assert plans[0]["seconds"] < plans[1]["seconds"]


def test_parts_are_cut_without_made_tokens(tmp_path):
    words = ("quantize", "default:", "-q", "-o", tmp_path / "p0", *NONE, "--bits", 3, "--shard", "0/2")
    assert bntools(*words) == 0
    assert bntools(*words, "-f", "--grid", "weighted", "--calib-tokens", 512) == 2


@pytest.mark.parametrize(
    "words", [("--calib-tokens", 0), ("--calib-tokens", 63), (*NONE, "--calib-tokens", 3)]
)
def test_too_few_tokens_are_refused(words, tmp_path, capsys):
    assert bntools("quantize", "default:", "-q", "-o", tmp_path / "q", *words) == 2
    assert "too few" in capsys.readouterr().err
