"""What TAB does, in the real shells: a person types, and reads what stands on the line."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "completions"


def answer(words: str, shell: str = "bash", **more: str) -> list[str]:
    """What the command tells the shell: `type,value` lines of bash, words as the shell splits them."""
    environment = {**os.environ, "_BNTOOLS_COMPLETE": f"{shell}_complete", "COMP_WORDS": words,
                   "COMP_CWORD": str(len(words.split(" ")) - 1), **more}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bntools"], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("words", ["bntools info x", "bntools quantize -o x", "bntools eval --text x",
                                   "bntools data-dim --plot x", "bntools fetch smollm2 -o x"])  # fmt: skip
def test_files_are_offered_where_files_are_meant(words):
    assert "file,x" in answer(words)


def test_names_are_offered_where_names_are_meant():
    assert "plain,smollm2" in answer("bntools fetch smo")
    assert "plain,default:" in answer("bntools quantize de")
    assert "plain,quantize" in answer("bntools quan")


def test_a_value_behind_an_equals_sign_is_completed():
    assert answer("bntools quantize --method = gp") == ["plain,gptq"], "bash breaks the word at the sign"
    assert "plain" in answer("bntools quantize --method=gp", "zsh")
    assert "--method=gptq" in answer("bntools quantize --method=gp", "zsh")
    assert any(
        "--method=gptq" in line
        for line in answer("bntools quantize --method=gp", "fish", COMP_CWORD="--method=gp")
    )


def typed(shell: list[str], setup: str, keys: str, wanted: str, folder: Path) -> str:
    """Start a shell on a terminal, source the script, type keys, and read until `wanted` stands there."""
    tool = folder / "bntools"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m bntools "$@"\n')
    tool.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "TERM": "dumb",
        "PS1": "> ",
        "HOME": str(folder),
    }
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, environment)
    text = ""
    try:
        os.write(fd, f"{setup}; echo READ''Y\n".encode())
        text = _read(fd, "READY", 60)
        os.write(fd, keys.encode())
        text = _read(fd, wanted, 60)
    finally:
        os.close(fd)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return text


def _read(fd: int, wanted: str, patience: float) -> str:
    """What the terminal shows, until the text stands in it; what came so far when nothing comes any more."""
    text, until = "", time.monotonic() + patience
    while wanted not in text and time.monotonic() < until:
        if select.select([fd], [], [], 0.2)[0]:
            text += re.sub(
                r"\x1b\[[0-9;?]*[A-Za-z]|\x07|\x1b[=>]", "", os.read(fd, 4096).decode(errors="replace")
            )
    return text


@pytest.mark.slow
@pytest.mark.parametrize(("keys", "wanted"), [
    ("bntools quan\t", "bntools quantize "), ("bntools quantize --dry\t", "--dry-run"),
    ("bntools info poi\t", "bntools info points.npy"), ("bntools fetch smo\t", "bntools fetch smollm2"),
    ("bntools quantize --method=gp\t", "--method=gptq"),
])  # fmt: skip
def test_bash_completes_what_is_typed(keys, wanted, tmp_path):
    (tmp_path / "points.npy").touch()
    shell = ["bash", "--norc", "--noprofile", "-i"]
    assert wanted in typed(shell, f"source {SCRIPTS / 'bntools.bash'}", keys, wanted, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed: apt-get install zsh")
@pytest.mark.parametrize(("keys", "wanted"), [
    ("bntools quan\t", "quantize"), ("bntools info poi\t", "points.npy"),
    ("bntools quantize --method=gp\t", "--method=gptq"),
])  # fmt: skip
def test_zsh_completes_what_is_typed(keys, wanted, tmp_path):
    (tmp_path / "points.npy").touch()
    setup = f"autoload -U compinit; compinit -u; source {SCRIPTS / '_bntools'}"
    assert wanted in typed(["zsh", "-f", "-i"], setup, keys, wanted, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed: apt-get install fish")
@pytest.mark.parametrize(("words", "wanted"), [
    ("bntools quan", "quantize"), ("bntools info poi", "points.npy"), ("bntools quantize --method=gp", "--method=gptq"),
])  # fmt: skip
def test_fish_completes_what_is_typed(words, wanted, tmp_path):
    """fish tells what it would offer without a terminal of the abilities it asks for."""
    (tmp_path / "points.npy").touch()
    tool = tmp_path / "bntools"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m bntools "$@"\n')
    tool.chmod(0o755)
    script = f"source {SCRIPTS / 'bntools.fish'}; complete -C '{words}'"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert wanted in done.stdout
