"""Options that several tools have, worded once: a picture, a file that is written if asked for, a tensor to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from bntools.options import not_empty

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def plot(what: str) -> Decorator:
    """--plot, which draws `what`; the callback gets `plot`, a path or None."""
    return click.option("--plot", metavar="FILE", help=f"Draw {what}: .svg, .png or .pdf.")


def replacing(what: str) -> Decorator:
    """-f/--force of a tool without options.output; the callback gets `force`."""
    return click.option("-f", "--force", is_flag=True, help=f"Replace an existing {what}.")


def written(what: str, metavar: str = "PATH") -> Decorator:
    """-o/--output of what is written only if it is named; the callback gets `output`, a path or None."""
    return click.option(
        "-o", "--output", callback=not_empty, is_eager=True, metavar=metavar, help=f"Write {what}."
    )


def tensor(what: str = "tensor", several: str = "several") -> Decorator:
    """--tensor, which of the arrays in INPUT is read; the callback gets `tensor`, a name or None."""
    return click.option("--tensor", metavar="NAME", help=f"The {what} to read, where INPUT has {several}.")


def drop_bad(function: Callable[..., Any]) -> Callable[..., Any]:
    """--drop-bad; the callback gets `drop_bad`."""
    return click.option("--drop-bad", is_flag=True, help="Leave out rows with NaN or infinity.")(function)
