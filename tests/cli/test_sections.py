"""Options under headings, in --help and in the man page alike."""

from __future__ import annotations

import re

import click
import pytest

from bntools import options
from bntools._docs import options_section
from bntools.registry import COMMANDS


def toy():
    @click.command("toy", cls=options.Sectioned)
    @options.section("Size", click.option("--small", help="Small."), click.option("--large", help="Large."))
    @options.section("Method", click.option("--plain", help="Plain."))
    @options.common
    def command(**values):
        """Play."""

    return command


def headings(command):
    text = command.get_help(click.Context(command, info_name=command.name))
    return re.findall(r"^([A-Z][\w ]+):$", text, re.MULTILINE)


def test_options_stand_under_their_headings_and_common_ones_last():
    command = toy()
    groups = options.by_section(command.params)
    assert list(groups) == ["Size", "Method", options.COMMON]
    assert [option.name for option in groups["Size"]] == ["small", "large"]
    assert headings(command) == ["Size", "Method", "Common"]
    assert re.findall(r"^\.Ss (.+)$", options_section(command), re.MULTILINE) == ["Size", "Method", "Common"]


@pytest.mark.parametrize("name", ["quantize", "stack-compress"])
def test_a_tool_with_many_options_shows_each_under_one_heading(name):
    command = COMMANDS[name]
    shown = [one for group in options.by_section(command.params).values() for one in group]
    assert sorted(one.name for one in shown) == sorted(one.name for one in command.params)
    assert headings(command)[:3] == ["Size", "Method", "Calibration"]
    assert max(map(len, options.by_section(command.params).values())) <= 20


def test_a_command_without_headings_is_listed_as_before():
    command = COMMANDS["info"]
    assert ".Ss" not in options_section(command)
    assert headings(command) == ["Options"]
