"""bntools cost-tts as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support import planted_trials as planted

from bntools import cli

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-cost-tts.1"


@pytest.fixture
def call(capsys):
    def run(*words):
        status = cli.run(["cost-tts", *map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, config in planted.configs().items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    lines = planted.trials(planted.chances(np.array([-3.0, -1.0, 0.5, 1.0, 1.2]), 15, rng), 4, rng)
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_the_command_line_of_the_page_works_and_its_keys_are_documented(call, folder):
    words = ("runs.jsonl", "--models", "a/", "b/", "c/", "d/", "e/", "--budget", "1e5", "--sparse", "topk:1024",
             "--device", "b200", "--plot", "f.svg", "--bootstrap", 50)  # fmt: skip
    status, out, err = call(*words)
    assert status == 0, err
    report = json.loads(out)
    page = PAGE.read_text()
    known = {n for line in re.findall(r"^\.It Li (.+)$", page, re.MULTILINE) for n in re.split("[ ,]+", line)}
    assert set(report) <= known
    assert report["intensity"] == pytest.approx(2250 / 8)
    assert "<svg" in (folder / "f.svg").read_text()


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("runs.jsonl",), 2, "no models"),
        (("runs.jsonl", "a"), 2, "no --device"),
        (("gone.jsonl", "a", "--device", "b200"), 2, "cannot open gone.jsonl"),
        (("runs.jsonl", "a", "--device", "b200"), 3, "name model 'b'"),
        (("runs.jsonl", "a", "--device", "b200", "--sparse", "half"), 2, "no budget of keys"),
        (("runs.jsonl", *"abcde", "--device", "b200", "--trials", "8"), 3, "a query has 4"),
        (("runs.jsonl", *"abcde", "--device", "b200", "--trials", "0"), 2, "positive"),
        (("runs.jsonl", *"abcde", "--device", "b200,h100"), 2, "one at a time"),
        (("runs.jsonl", "a", "--device", "b200", "--plot", "x.gif"), 2, "no picture format"),
    ],
)
def test_mistakes_are_named(call, folder, words, code, what):
    status, out, err = call(*words)
    assert (status, out) == (code, "")
    assert what in err
    assert "Traceback" not in err
