"""quantize --method gptq --compensate: fixed codes that make up for what the layers before them lost."""

from __future__ import annotations

import json

import pytest
from support.exports import bntools

pytestmark = pytest.mark.slow
WORDS = (
    "quantize",
    "default:",
    "-q",
    "-f",
    "--method",
    "gptq",
    "--bits",
    2,
    "--group-size",
    32,
    "--calib-tokens",
    8192,
)


def kl(path, capsys):
    capsys.readouterr()
    assert bntools("eval", path, "--tokens", 4096, "--json") == 0
    return json.loads(capsys.readouterr().out)["kl"]["mean"]


@pytest.mark.parametrize("more", [(), ("--fisher",)])
def test_it_diverges_less(more, tmp_path, capsys):
    path, found = tmp_path / "q.safetensors", []
    for words in ((), ("--compensate",)):
        assert bntools(*WORDS, *more, *words, "-o", path) == 0
        found.append(kl(path, capsys))
    assert found[1] < 0.85 * found[0]


def test_what_it_needs_is_said(tmp_path, capsys):
    for words in (("--method", "rtn"), ("--sequential",)):
        assert bntools(*WORDS, "--compensate", *words, "-o", tmp_path / "q.safetensors") == 2
        assert "--compensate needs" in capsys.readouterr().err
