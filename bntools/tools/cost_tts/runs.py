"""Trials as JSON lines {model, query, trial, tokens, correct}, grouped by what was run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bntools.core.errors import bad_input

KEYS = ("model", "query", "tokens", "correct")
_EXAMPLE = '{"model": "q06", "query": 1, "trial": 0, "tokens": 812, "correct": true}'


@dataclass
class Group:
    """Trials of one model under one limit of tokens: by query, the tokens of each trial and whether it was right."""

    model: str
    limit: int | None
    tokens: dict[str, list[int]] = field(default_factory=dict)
    correct: dict[str, list[bool]] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)

    @property
    def fewest(self) -> int:
        """Trials that every query has."""
        return min(len(trials) for trials in self.tokens.values())


def read_runs(lines: Iterable[bytes], label: str, prompt: int) -> list[Group]:
    """Groups in the order they appear. prompt: tokens of a prompt where a line has no key of that name.

    Raises BnError (exit 3) naming the line and key that is missing or wrong.
    """
    groups: dict[tuple[str, int | None], Group] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{label}, line {number}"
            _add(groups, _parse(line, where), where, prompt)
    if not groups:
        raise bad_input(f"{label} has no trials", f"one a line: {_EXAMPLE}")
    queries = {frozenset(group.tokens) for group in groups.values()}
    if len(queries) > 1:
        sizes = sorted(len(names) for names in queries)
        raise bad_input(
            f"{label}: models and limits have different queries ({sizes[0]} to {sizes[-1]})",
            "every one needs the same queries",
        )
    return list(groups.values())


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        raise bad_input(f"{where} is not JSON", f"a line: {_EXAMPLE}") from None
    if not isinstance(value, dict):
        raise bad_input(f"{where} is no object", f"a line: {_EXAMPLE}")
    for key in KEYS:
        if key not in value:
            raise bad_input(f"{where} lacks {key}", f"a line: {_EXAMPLE}")
    return value


def _add(groups: dict[tuple[str, int | None], Group], value: dict[str, Any], where: str, prompt: int) -> None:
    tokens, correct, limit = value["tokens"], value["correct"], value.get("limit")
    own = value.get("prompt", prompt)
    for key, size in (("tokens", tokens), ("limit", limit), ("prompt", own)):
        if size is not None and (
            isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 1 << 32
        ):
            raise bad_input(f"{where}: {key} is {size!r}, not a number of tokens")
    if correct not in (0, 1):
        raise bad_input(f"{where}: correct is {correct!r}, not true or false")
    model, query = str(value["model"]), str(value["query"])
    group = groups.setdefault((model, limit), Group(model, limit))
    group.tokens.setdefault(query, []).append(tokens)
    group.correct.setdefault(query, []).append(bool(correct))
    group.prompts[query] = own
