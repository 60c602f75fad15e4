"""Pairs and statistics as JSON lines: read in batches, bad lines reported by number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from bntools.core.errors import BnError, bad_input
from bntools.tools.bleu_gpu.stats import bleu_stats

BATCH = 4096
"""Lines worked on at a time: what is held in memory of a stream of any length."""
_FIRST, _LAST = -(2**63), 2**63 - 1

Parse = Callable[[Any], Any]
Skip = Callable[[int, str], None]


def refuse(number: int, reason: str) -> None:
    """What to do with a bad line unless told to skip it. Raises BnError (exit 3)."""
    raise bad_input(f"line {number}: {reason}", "--skip-bad goes on without it")


def batches(lines: Iterable[bytes], parse: Parse, skip: Skip = refuse) -> Iterator[list[Any]]:
    """Parsed lines, `BATCH` at a time; empty lines are passed over, bad ones go to `skip` with their number."""
    batch: list[Any] = []
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            batch.append(parse(json.loads(line)))
        except (ValueError, TypeError, BnError) as error:
            try:
                skip(number, _reason(error))
            except BnError:
                if batch:  # what came before the bad line is scored
                    yield batch
                raise
            continue
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"not JSON: {error}"
    return error.what if isinstance(error, BnError) else str(error)


def pair(value: Any) -> tuple[list[int], list[list[int]]]:
    """Hypothesis and references of one line `{"hyp": [ids], "refs": [[ids], ...]}`. Raises ValueError."""
    if not isinstance(value, dict) or "hyp" not in value or "refs" not in value:
        raise ValueError('not an object with "hyp" and "refs"')
    hyp, refs = value["hyp"], value["refs"]
    _check(hyp, '"hyp"')
    if not isinstance(refs, list):
        raise ValueError('"refs" is not a list of lists of ids')
    if not refs:
        raise ValueError('"refs" holds no reference')
    for ref in refs:
        _check(ref, "a reference")
    return hyp, refs


def _check(ids: Any, what: str) -> None:
    # set(map(type, ...)) looks at every id in C: bool and float are not ids, though they compare like them.
    if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
        raise ValueError(f"{what} is not a list of whole numbers")
    if ids and (min(ids) < _FIRST or max(ids) > _LAST):
        raise ValueError(f"{what} holds an id of more than 64 bits")


def stats_of(pairs: list[Any], pad_id: int | None, eos_id: int | None, max_n: int) -> Tensor:
    """Statistics [B, 2 + 2 max_n] of a batch of pairs."""
    hyps, refs = zip(*pairs, strict=True)
    return bleu_stats(list(hyps), list(refs), pad_id=pad_id, eos_id=eos_id, max_n=max_n)


def stored(orders: int) -> Parse:
    """Parser of one line `{"stats": [...]}` of `2 + 2 orders` counts."""

    def parse(value: Any) -> list[int]:
        found = value.get("stats") if isinstance(value, dict) else None
        if not isinstance(found, list) or not set(map(type, found)) <= {int}:
            raise ValueError('not an object with "stats", a list of whole numbers')
        if len(found) != 2 + 2 * orders:
            raise ValueError(f"{len(found)} statistics, --max-n {orders} has {2 + 2 * orders}")
        if min(found) < 0 or max(found) >= 2**31:
            raise ValueError("a statistic is negative or beyond 2^31")
        return found

    return parse


def table(rows: list[Any]) -> Tensor:
    """Statistics of a batch of `stored` lines."""
    return torch.tensor(rows, dtype=torch.int32)
