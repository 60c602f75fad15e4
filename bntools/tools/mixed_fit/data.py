"""From a table and terms to matrices: fixed design, random terms with their groups, rows where all is known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.tables import Table
from bntools.core.errors import bad_input, usage
from bntools.tools.mixed_fit.settings import Settings

Floats = NDArray[np.float64]
Array = NDArray[Any]
_MOST_LEVELS = 50  # of a text column among the fixed effects


class Term(NamedTuple):
    """A random term: design z [n, r] with its names, and the group of each row [n] with the groups' names."""

    z: Floats
    names: list[str]
    group: str
    codes: NDArray[np.int64]
    levels: list[str]


class MixedData(NamedTuple):
    """y [n], x [n, p], random terms; rows [n]: their number in the table; missing: rows left out."""

    y: Floats
    x: Floats
    names: list[str]
    terms: list[Term]
    rows: NDArray[np.int64]
    missing: int


def read_data(table: Table, settings: Settings) -> MixedData:
    """Rows where target, fixed effects and groups are all known.

    Raises BnError: exit 2 for a term that cannot be read or an unknown column, 3 for a text target, as many groups as
    rows, a single group, or a design whose columns depend on each other.
    """
    if table.kind(settings.target) == "text":
        raise bad_input(f"target {settings.target} is text", "a mixed model explains a quantity")
    parsed = [part for term in settings.random for part in parse_random(term)]
    columns = {settings.target: table.column(settings.target)}
    fixed = [name.strip() for name in settings.fixed.split("+") if name.strip() not in ("", "1", "0")]
    used = [
        *(piece for name in fixed for piece in name.split(":")),
        *(n for names, groups in parsed for n in [*names, *groups]),
    ]
    for name in used:
        if name == settings.target:
            raise usage(f"the target {name} is among its own explanations", "leave it out")
        columns[name] = table.column(name)
    known = np.all([_known(column) for column in columns.values()], 0)
    rows = np.flatnonzero(known)
    columns = {name: column[rows] for name, column in columns.items()}
    y = columns[settings.target].astype(np.float64)
    if len(rows) < 3 or np.ptp(y) == 0:
        raise bad_input(
            f"target {settings.target} does not vary over the {len(rows)} rows where everything is known"
        )
    x, names = _fixed(fixed, columns, "0" not in [part.strip() for part in settings.fixed.split("+")])
    terms = [_term(effects, groups, columns, len(rows)) for effects, groups in parsed]
    return MixedData(y, x, names, terms, rows, table.rows - len(rows))


def parse_random(term: str) -> list[tuple[list[str], list[str]]]:
    """`1+x|a/b` as effects and grouping columns: ([1, x], [a]) and ([1, x], [a, b]); `a:b` is the latter alone.

    Raises BnError (exit 2) for anything else.
    """
    effects, bar, group = term.partition("|")
    if not bar or not group.strip() or not effects.strip() or "|" in group:
        raise usage(f"--random {term!r} is no random term", "'1|GROUP', '1+x|GROUP', '1|a/b' for b within a")
    names = [name.strip() for name in effects.split("+")]
    names = (
        [name for name in names if name != "0"] if "0" in names else ["1", *(n for n in names if n != "1")]
    )
    nested = [[name.strip() for name in part.split(":")] for part in group.split("/")]
    return [(names, [n for part in nested[: depth + 1] for n in part]) for depth in range(len(nested))]


def _known(column: Array) -> NDArray[np.bool_]:
    if column.dtype.kind == "O":
        return np.array([value != "" for value in column.tolist()])
    return np.isfinite(column) if column.dtype.kind == "f" else np.ones(len(column), bool)


def _fixed(terms: list[str], columns: dict[str, Array], intercept: bool) -> tuple[Floats, list[str]]:
    n = len(next(iter(columns.values())))
    blocks, names = ([np.ones((n, 1))], ["(intercept)"]) if intercept else ([], [])
    for term in terms:
        block, labels = np.ones((n, 1)), [""]
        for piece in term.split(":"):
            values, own = _coded(columns[piece], piece)
            block = (block[:, :, None] * values[:, None, :]).reshape(n, -1)
            labels = [f"{a}:{b}" if a else b for a in labels for b in own]
        blocks.append(block)
        names += labels
    if not blocks:
        raise usage("no fixed effect", "--fixed 1")
    x = np.hstack(blocks)
    scaled = x / np.maximum(np.sqrt((x**2).sum(0)), 1e-300)
    if np.linalg.matrix_rank(scaled, tol=1e-9) < x.shape[1]:
        raise bad_input(f"the fixed effects {', '.join(names)} depend on each other", "leave one out")
    return x, names


def _coded(column: Array, name: str) -> tuple[Floats, list[str]]:
    """A column of numbers, or 0 and 1 for each level of a text but the first."""
    if column.dtype.kind != "O":
        return column.astype(np.float64)[:, None], [name]
    levels = sorted(set(column.tolist()))
    if len(levels) > _MOST_LEVELS:
        raise usage(f"{name} has {len(levels)} levels, too many for fixed effects", f"--random '1|{name}'")
    return np.stack([column == level for level in levels[1:]], 1).astype(float), [
        f"{name}={level}" for level in levels[1:]
    ]


def _term(effects: list[str], groups: list[str], columns: dict[str, Array], n: int) -> Term:
    name = ":".join(groups)
    keys = list(zip(*(columns[group].tolist() for group in groups), strict=True))
    order = {key: index for index, key in enumerate(sorted(set(keys)))}
    if len(order) < 2:
        raise bad_input(f"{name} has one group", "a random effect needs several")
    z = np.stack(
        [np.ones(n) if effect == "1" else columns[effect].astype(np.float64) for effect in effects], 1
    )
    if len(order) >= n:
        raise bad_input(
            f"{name} has {len(order):,} groups for {n:,} rows: the effects cannot be told from the errors",
            "a coarser group",
        )
    levels = [
        ":".join(f"{part:g}" if isinstance(part, float) else str(part) for part in key) for key in order
    ]
    names = ["(intercept)" if effect == "1" else effect for effect in effects]
    return Term(z, names, name, np.array([order[key] for key in keys]), levels)
