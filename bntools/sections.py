"""Headings of options, in --help and in the man pages; `bntools.options` gives them to the tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_SECTION = "bntools_section"  # attribute of an option: the heading it stands under
COMMON = "Common"


def section(title: str, *decorators: Decorator) -> Decorator:
    """Options under one heading of --help, in their order; the command's class is `Sectioned`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        earlier = list(getattr(function, "__click_params__", ()))
        for decorator in reversed(decorators):
            function = decorator(function)
        for parameter in getattr(function, "__click_params__", ()):
            if parameter not in earlier:
                setattr(parameter, _SECTION, title)
        return function

    return decorate


def by_section(parameters: list[click.Parameter]) -> dict[str, list[click.Parameter]]:
    """Parameters by heading, in the order headings first come; those of `Common` or of none come last."""
    groups: dict[str, list[click.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, _SECTION, COMMON), []).append(parameter)
    last = groups.pop(COMMON, [])
    return {**groups, COMMON: last}


class Sectioned(click.Command):
    """A command whose options --help lists under headings, see `section`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, parameters in by_section(self.get_params(ctx)).items():
            records = [record for one in parameters if (record := one.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
