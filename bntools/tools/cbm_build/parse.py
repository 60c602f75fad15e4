"""Values of options, from text."""

from __future__ import annotations

import click


def sparsity(context: click.Context, _: click.Parameter, value: str) -> int:
    """--nec: a number of concepts a class; auto is 0."""
    from bntools.core.errors import usage

    if value == "auto":
        return 0
    if not value.isdecimal() or int(value) < 1:
        raise usage(f"--nec {value} is neither auto nor a number of concepts", "--nec 5")
    return int(value)


def sparsities(context: click.Context, _: click.Parameter, value: str) -> tuple[int, ...]:
    """--table: numbers of concepts a class, in order."""
    from bntools.core.errors import usage

    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise usage(f"--table {value} is no list of numbers of concepts", "--table 1,2,5,10")
    return tuple(sorted({int(part) for part in parts}))


def ridge(context: click.Context, _: click.Parameter, value: str) -> float | None:
    """--l2: a number; auto is None."""
    from bntools.core.errors import usage

    if value == "auto":
        return None
    try:
        return float(value)
    except ValueError:
        raise usage(f"--l2 {value} is neither auto nor a number", "--l2 0.03") from None
