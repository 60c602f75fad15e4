"""Sources and tables in files, and the command in this process."""

from __future__ import annotations

import json

import pytest
from safetensors.numpy import save_file
from support.mixtures import rows

from bntools import cli


@pytest.fixture
def sources(tmp_path):
    """A folder of three sources beside a file of validation rows."""
    folder = tmp_path / "sources"
    folder.mkdir()
    save_file(rows((300, 20, 20), 0), folder / "web.safetensors")
    save_file(rows((20, 300, 300), 1), folder / "code.safetensors")
    save_file(rows((110, 110, 110), 2, 0.5), folder / "forum.safetensors")
    save_file(rows((300, 300, 300), 3), tmp_path / "val.safetensors")
    return folder


@pytest.fixture
def call(capsys):
    """Run in this process: exit code, standard output and standard error."""

    def inside(*words):
        status = cli.run(["data-mix", *map(str, words)])
        return status, *capsys.readouterr()

    return inside


@pytest.fixture
def report(call):
    """The report of a command that works."""

    def inside(*words):
        status, out, err = call(*words, "--json")
        assert status == 0, err
        return json.loads(out)

    return inside


@pytest.fixture
def table(tmp_path):
    """A file of runs."""

    def write(values, name="runs.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(value) + "\n" for value in values))
        return tmp_path / name

    return write
