"""Pairs, samples and statistics as JSON lines: read in blocks, bad lines reported by number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import BnError, bad_input

BLOCK = 1 << 20
"""Bytes read at a time: with what is made of them, all that is held of a stream of any length."""
_FIRST, _LAST = -(2**63), 2**63 - 1

Parse = Callable[[Any], Any]
Skip = Callable[[int, str], None]


class Pairs(NamedTuple):
    """A batch of pairs, flat, under the names that `bleu_stats` gives its arguments."""

    hyp: NDArray[np.int64]
    refs: NDArray[np.int64]
    hyp_cu: NDArray[np.int64]
    ref_cu: NDArray[np.int64]
    ref_rows: NDArray[np.int64]


LINE_HINT = 'a line is {"hyp": [ids], "refs": [[ids], ...]}'
TEXT_HINT = "--tokenizer default: makes ids of texts, or that of your model"


def refuse(number: int, reason: str) -> None:
    """What to do with a bad line unless told to skip it. Raises BnError (exit 3)."""
    if number > 1:
        raise bad_input(f"line {number}: {reason}", "--skip-bad goes on without it")
    hint = TEXT_HINT if '"hyp"' in reason and "whole numbers" in reason else LINE_HINT
    raise bad_input(f"line {number}: {reason}", hint)  # all lines are like the first, mostly


def blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Number of the first line and the text of whole lines, as they come, about BLOCK bytes at a time.

    Raises BnError (exit 3) on safetensors, which begin with the length of a JSON header.
    """
    number, rest = 1, []
    read = getattr(file, "read1", file.read)
    while data := read(BLOCK):
        if number == 1 and not rest and data[4:9] == b"\0\0\0\0{":
            raise bad_input(
                "safetensors where JSON lines are expected", "--refs FILE, with the references' ids"
            )
        end = data.rfind(b"\n") + 1
        if not end:
            rest.append(data)
            continue
        text = b"".join([*rest, data[:end]])
        rest = [data[end:]]
        yield number, text
        number += text.count(b"\n")
    if last := b"".join(rest):
        yield number, last + b"\n"


def batches(file: BinaryIO, parse: Parse, skip: Skip = refuse) -> Iterator[list[Any]]:
    """What `parse` makes of each line, a block at a time; empty lines are passed over, bad ones go to `skip`."""
    for first, text in blocks(file):
        done: list[Any] = []
        for number, line in enumerate(text.split(b"\n"), first):
            if not line or line.isspace():
                continue
            try:
                done.append(parse(json.loads(line)))
            except (ValueError, TypeError, RecursionError, BnError) as error:
                try:
                    skip(number, _reason(error))
                except BnError:
                    if done:  # what came before the bad line is scored
                        yield done
                    raise
        if done:
            yield done


def pairs(file: BinaryIO, skip: Skip = refuse) -> Iterator[Pairs]:
    """Lines {"hyp": [ids], "refs": [[ids], ...]}, a block at a time; as `batches` for empty and bad ones."""
    for first, text in blocks(file):
        parsed, regular = _parsed(text)
        if not regular.all():
            try:
                parsed = _parsed(_repaired(first, text, regular, skip))[0]
            except _Stopped as stop:
                before = _parsed(stop.before)[0]
                if len(before.hyp_cu) > 1:
                    yield before
                raise stop.error from None
        if len(parsed.hyp_cu) > 1:
            yield parsed


class _Stopped(Exception):
    """A bad line that is not to be skipped, and the good ones before it."""

    def __init__(self, error: BnError, before: bytes) -> None:
        super().__init__()
        self.error, self.before = error, before


def _parsed(text: bytes) -> tuple[Pairs, Any]:
    """All lines that are plainly written, and which those are."""
    from bntools.tools.bleu_gpu import parse_jit

    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == 10) + 1
    room = len(data) // 2 + 2  # an id and what follows it take two bytes, a reference three
    hyp, refs, ref_cu = (np.empty(room, np.int64) for _ in range(3))
    hyp_cu, ref_rows = (np.empty(len(ends) + 1, np.int64) for _ in range(2))
    regular = np.zeros(len(ends), np.bool_)
    rows = parse_jit.lines(data, ends, hyp, hyp_cu, refs, ref_cu, ref_rows, regular)
    known = ref_rows[rows]
    parts = (
        hyp[: hyp_cu[rows]],
        refs[: ref_cu[known]],
        hyp_cu[: rows + 1],
        ref_cu[: known + 1],
        ref_rows[: rows + 1],
    )
    return Pairs(*parts), regular


def _repaired(first: int, text: bytes, regular: Any, skip: Skip) -> bytes:
    """The lines with those that were not plainly written written so, or left out."""
    good = []
    for k, line in enumerate(text.split(b"\n")[:-1]):
        if regular[k]:
            good.append(line)
        elif line and not line.isspace():
            try:
                hyp, refs = pair(json.loads(line))
                good.append(json.dumps({"hyp": hyp, "refs": refs}).encode())
            except (ValueError, TypeError, RecursionError) as error:
                try:
                    skip(first + k, _reason(error))
                except BnError as stop:
                    raise _Stopped(stop, b"".join(line + b"\n" for line in good)) from None
    return b"".join(line + b"\n" for line in good)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"not JSON: {error}"
    return error.what if isinstance(error, BnError) else str(error)


def pair(value: Any) -> tuple[list[int], list[list[int]]]:
    """Hypothesis and references of one line `{"hyp": [ids], "refs": [[ids], ...]}`. Raises ValueError."""
    hyp, refs = _fields(value)
    _check(hyp, '"hyp"')
    for ref in refs:
        _check(ref, "a reference")
    return hyp, refs


def texts(value: Any) -> tuple[str, list[str]]:
    """The same of texts; a single reference may stand alone."""
    if isinstance(value, dict) and isinstance(value.get("refs"), str):
        value = {**value, "refs": [value["refs"]]}
    hyp, refs = _fields(value)
    if not all(isinstance(text, str) for text in (hyp, *refs)):
        raise ValueError("with --tokenizer, hypotheses and references are texts")
    return hyp, refs


def _fields(value: Any) -> tuple[Any, list[Any]]:
    if not isinstance(value, dict) or "hyp" not in value or "refs" not in value:
        raise ValueError('not an object with "hyp" and "refs"')
    if not isinstance(value["refs"], list):
        raise ValueError('"refs" is not a list of references')
    if not value["refs"]:
        raise ValueError('"refs" holds no reference')
    return value["hyp"], value["refs"]


def sample(value: Any) -> list[int]:
    """Ids of one line `{"hyp": [ids]}` or `[ids]`. Raises ValueError."""
    ids = value.get("hyp") if isinstance(value, dict) else value
    _check(ids, '"hyp"')
    return ids


def sample_text(value: Any) -> str:
    """The same of a text."""
    text = value.get("hyp") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError("with --tokenizer, a sample is a text")
    return text


def _check(ids: Any, what: str) -> None:
    # set(map(type, ...)) looks at every id in C: bool and float are not ids, though they compare like them.
    if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
        raise ValueError(f"{what} is not a list of whole numbers")
    if ids and (min(ids) < _FIRST or max(ids) > _LAST):
        raise ValueError(f"{what} holds an id of more than 64 bits")


def encoded(batch: Sequence[tuple[str, list[str]]], encode: Callable[[list[str]], list[list[int]]]) -> Pairs:
    """Pairs of ids of a batch of `texts`."""
    hyps = encode([hyp for hyp, _ in batch])
    refs = encode([ref for _, row in batch for ref in row])
    counts = [len(row) for _, row in batch]
    hyp_cu, ref_cu, ref_rows = (
        np.array([0, *sizes], np.int64).cumsum()
        for sizes in ([len(h) for h in hyps], [len(r) for r in refs], counts)
    )
    flat = (np.array([i for row in rows for i in row], np.int64) for rows in (hyps, refs))
    return Pairs(*flat, hyp_cu, ref_cu, ref_rows)


def stored(orders: int) -> Parse:
    """Parser of one line `{"stats": [...]}` of `2 + 2 orders` counts."""

    def parse(value: Any) -> list[int]:
        stats = value.get("stats") if isinstance(value, dict) else None
        if not isinstance(stats, list) or not set(map(type, stats)) <= {int}:
            raise ValueError('not an object with "stats", a list of whole numbers')
        if len(stats) != 2 + 2 * orders:
            raise ValueError(f"{len(stats)} statistics, --max-n {orders} has {2 + 2 * orders}")
        if min(stats) < 0 or max(stats) >= 2**31:
            raise ValueError("a statistic is negative or beyond 2^31")
        return stats

    return parse


def table(rows: list[Any]) -> NDArray[np.int32]:
    """Statistics of a batch of `stored` lines."""
    return np.array(rows, np.int32)
