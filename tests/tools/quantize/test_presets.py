"""Presets stand for options; what is on the command line wins over them."""

from __future__ import annotations

import itertools

import click
import pytest
import torch
from support.exports import bntools, quantized

from bntools.core.artifact.reader import open_path
from bntools.core.errors import BnError
from bntools.tools.quantize.command import command
from bntools.tools.quantize.command_line.flags import PRESETS
from bntools.tools.quantize.command_line.parse import Flags, settings_of, without_text
from bntools.tools.quantize.command_line.presets import LARGEST, default_of, expand, written_out

OPTIONS = (
    ("--method", "rtn"), ("--method", "gptq"), ("--grid", "weighted"), ("--grid", "minmax"), ("--dim", "ic"),
    ("--dim", "ada"), ("--dim", "oc"), ("--per-ic",), ("--symmetric",), ("--scales", "fp16"), ("--scales", "4"),
    ("--balance",), ("--no-compensate",), ("--plain",), ("--group-size", "32"), ("--calib", "none"),
    ("--calib-tokens", "512"), ("--calib", "none", "--calib-tokens", "0"), ("--distill", "2"),
    ("--method", "gptq", "--sequential"), ("--method", "gptq", "--fisher"),
)  # fmt: skip


def flags_of(*words):
    context = command.make_context("quantize", ["default:", *map(str, words)])
    given = {name: context.params[name] for name in Flags._fields if name != "named"}
    source, default = context.get_parameter_source, click.core.ParameterSource.DEFAULT
    return Flags(**given, named=frozenset(name for name in given if source(name) != default))


def settings(*words, weights=0):
    return settings_of(without_text(expand(flags_of(*words), weights).flags), 0)


def test_each_preset_is_what_its_manual_page_says():
    fast, good, best, paper = (settings("--budget", 3.25, "--preset", name) for name in PRESETS)
    assert (fast.method, fast.calib, fast.calib_tokens, fast.grid.meta) == ("rtn", "none", 0, 0)
    assert good == settings("--budget", 3.25, "--method", "rtn")
    assert (best.method, best.grid.meta, best.grid.trellis, best.rounds) == ("gptq", 2, 5, 2)
    assert best.compensate
    assert best.free_groups
    assert (paper.method, paper.search, paper.grid.dim, paper.grid.group) == ("gptq", "minmax", "ada", 128)
    assert not paper.fisher
    assert settings("--bits", 3, "--preset", "best").grid.group == 18
    assert settings("--bits", 3, "--preset", "good") == settings("--bits", 3)


def test_a_budget_alone_is_the_best_code_and_with_a_method_beside_it_what_it_was():
    assert settings("--budget", 3.25) == settings("--budget", 3.25, "--preset", "best")
    large = settings("--budget", 3.25, weights=LARGEST + 1)
    assert large == settings("--budget", 3.25, "--preset", "good")
    assert default_of(flags_of("--budget", 3.25, "--calib-tokens", 512), 0) == "best"
    for words in OPTIONS:
        if words != ("--calib-tokens", "512"):
            assert default_of(flags_of("--budget", 3.25, *words), 0) is None, words
    for words in (("--bits", 3), ("--per-ic", "--bits", 3), ("--code", "entropy", "--budget", "3MB")):
        assert default_of(flags_of(*words), 0) is None


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [("--budget", 3.25), ("--bits", 3)])
def test_an_option_on_the_command_line_wins_over_every_preset(preset, size):
    """Wherever options make sense without a preset, they do with it, and keep their values."""
    for some in [*((one,) for one in OPTIONS), *itertools.combinations(OPTIONS, 2)]:
        words = [*size, *(word for option in some for word in option)]
        try:
            settings(*words)
        except BnError:
            continue
        flags = flags_of(*words, "--preset", preset)
        expanded = expand(flags, 0).flags
        settings_of(without_text(expanded), 0)
        for name in flags.named - {"preset"}:
            assert getattr(expanded, name) == getattr(flags, name), (words, name)


def test_the_history_holds_what_the_preset_stood_for(tmp_path):
    words = expand(flags_of("--budget", 3.25, "--preset", "fast"), 0).words
    line = ["bntools", "quantize", "default:", "--preset", "fast", "--budget", "3.25"]
    expected = ["--method", "rtn", "--grid", "minmax", "--calib", "none", "--calib-tokens", "0"]
    assert written_out(line, words) == ("bntools", "quantize", "default:", "--budget", "3.25", *expected)
    assert written_out([*line[:3], "--preset=fast"], words) == (*line[:3], *expected)
    assert written_out(line[:3], []) == tuple(line[:3])


def tensors(path):
    with open_path(path) as source:
        return {name: source.tensor(name) for name in source.names() if "/" not in name}, source.report


def test_a_budget_alone_writes_a_model_of_that_size_by_the_best_code(tmp_path):
    words = ("--budget", 3.25, "--calib-tokens", 512)
    quantized(tmp_path / "alone", *words)
    made, report = tensors(tmp_path / "alone")
    assert report["settings"]["method"] == "gptq"
    assert 3.2 < report["bits_per_weight"]["linear"] <= 3.25
    quantized(tmp_path / "named", *words, "--preset", "best")
    again, _ = tensors(tmp_path / "named")
    assert all(torch.equal(made[name], again[name]) for name in made)


def test_the_fast_preset_needs_no_text_and_reaches_the_size(tmp_path):
    quantized(tmp_path / "q", "--budget", 3.25, "--preset", "fast")
    _, report = tensors(tmp_path / "q")
    assert report["calibration"] == {"source": "none"}
    assert 3.2 < report["bits_per_weight"]["linear"] <= 3.25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--code", "entropy", "--preset", "best"), "--preset is for fixed codes"),
        (("--bits", 3, "--preset", "best", "--shard", "0/2"), "--preset best calibrates"),
    ],
)
def test_presets_that_cannot_be_are_refused(words, message, tmp_path, capsys):
    assert bntools("quantize", "default:", "-q", "-o", tmp_path / "q", *words) == 2
    assert message in capsys.readouterr().err
