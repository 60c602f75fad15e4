"""Wrong command lines: each is answered by one line and a hint, with the documented exit code, and no traceback.

wrong_lines.txt holds one a line, fields separated by tabs: the words after `bntools`, the exit code, a part of the
message, and maybe a line that the hint leads to, which works.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from bntools import cli
from bntools.registry import COMMANDS

SAMPLES = Path(__file__).parent.parent / "core" / "attacks" / "samples"
LINES = [
    (line.split("\t") + [""])[:4]
    for line in Path(__file__).with_name("wrong_lines.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
RENAMED = {"activations": "acts", "index": "base", "grouped": "q"}
BY_TOOL: dict[str, list[list[str]]] = defaultdict(list)
for entry in LINES:
    BY_TOOL[entry[0].split()[0]].append(entry)


def _fill(folder: Path) -> None:
    (folder / "m").mkdir()
    for path in SAMPLES.iterdir():
        if (
            path.name in ("config.json", "generation_config.json", "model.safetensors")
            or "tokenizer" in path.name
        ):
            shutil.copy(path, folder / "m" / path.name)
        name = RENAMED.get(path.stem, path.stem) + (".vec" if path.stem == "index" else path.suffix)
        shutil.copy(path, folder / ("net.json" if path.name == "network.json" else name))
    random = np.random.default_rng(0)
    for name, shape in (("narrow", (9, 3)), ("short", (5, 8)), ("wide", (9, 12))):
        np.save(folder / f"{name}.npy", random.standard_normal(shape).astype("f4"))
    (folder / "empty.jsonl").write_text("")
    (folder / "text.jsonl").write_text('{"hyp": "a b", "refs": ["a c"]}\n')
    (folder / "text.txt").write_text("the cat and the dog\n" * 40)
    runs = (folder / "runs.jsonl").read_text().splitlines()
    (folder / "few.jsonl").write_text("\n".join(runs[:2]) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrong")
    _fill(path)
    return path


@pytest.fixture
def typed(folder, monkeypatch, capfd):
    """Type a command line in that folder, with nothing on standard input: exit code and standard error."""
    monkeypatch.chdir(folder)
    stdin, null = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)

    def run(line: str) -> tuple[int, str]:
        words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", ["bntools", *words])
        code = cli.run(words)
        return code, capfd.readouterr().err

    yield run
    os.dup2(stdin, 0)
    os.close(stdin)
    os.close(null)


@pytest.mark.parametrize("tool", BY_TOOL)
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_line_is_answered_by_one_line_and_a_hint(tool, typed):
    for line, code, part, right in BY_TOOL[tool]:
        found, error = typed(line)
        said = error.splitlines()
        assert found == int(code), (line, error)
        assert part in error, (line, error)
        assert len([text for text in said if ": error: " in text]) == 1, (line, error)
        assert "Traceback" not in error, line
        assert "BNTOOLS_DEBUG" not in error, line
        hints = [text for text in said if text.startswith("hint: ")]
        assert len(hints) == 1, (line, error)
        if right:
            assert typed(right)[0] == 0, (line, right)


def test_two_hundred_lines_over_every_command():
    assert len(LINES) >= 200
    assert len({line for line, *_ in LINES}) == len(LINES)
    assert set(COMMANDS) <= set(BY_TOOL)


def test_every_option_in_a_hint_exists(typed):
    """A hint that names an option of its own tool names one that the tool has."""
    for line, *_ in LINES[::3]:
        tool = line.split()[0]
        if tool not in COMMANDS:
            continue
        hint = typed(line)[1].rpartition("hint: ")[2]
        if "bntools " in hint:  # of another tool
            continue
        known = {name for option in COMMANDS[tool].params for name in option.opts + option.secondary_opts}
        assert set(re.findall(r"--[a-z][a-z-]+", hint)) <= known | {"--help"}, (line, hint)
