"""Values of the shared options that nothing answers to are usage errors, in every tool that takes them."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from support.exports import bntools

from bntools.registry import COMMANDS

WRITERS = [name for name in COMMANDS if any("--output" in p.opts for p in COMMANDS[name].params)]
DEVICES = [name for name in COMMANDS if any("--device" in p.opts for p in COMMANDS[name].params)]


@pytest.mark.parametrize("name", WRITERS)
def test_an_empty_output_names_no_file(name, capsys):
    assert bntools(name, "-o", "") == 2
    assert "names no file" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "tpu", "", "cuda:99", "cuda:-1"])
def test_a_device_that_is_none_is_a_usage_error(device, tmp_path, capsys):
    assert DEVICES
    words = ("quantize", "default:", "--method", "gptq", "-o", tmp_path / "q", "--device", device)
    assert bntools(*words) == 2
    assert "--device" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("info", "default:"), ("quantize", "default:"), ("--version",)])
def test_a_closed_standard_output_is_one_line(words):
    command = f"exec {sys.executable} -m bntools {' '.join(words)} >&-"
    done = subprocess.run(
        ["sh", "-c", command], stderr=subprocess.PIPE, text=True, env={**os.environ}, check=False
    )
    assert done.returncode == 1
    assert "standard output is closed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_whole_number_that_may_be_left_out_is_never_zero():
    """`x or default` would take 0 for nothing. Those of which 0 is a value are told from None one by one."""
    told = {("quantize", "group_size"), ("quantize", "calib_tokens")}
    left_out = {
        (name, option.name)
        for name in COMMANDS
        for option in COMMANDS[name].params
        if isinstance(option.type, click.types.IntParamType) and option.default is None
        and (getattr(option.type, "min", None) or 0) < 1
    }  # fmt: skip
    assert left_out <= told
