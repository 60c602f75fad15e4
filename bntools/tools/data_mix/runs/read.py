"""Runs from JSON lines or csv."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bntools.core.datasets.tables import open_table
from bntools.core.errors import bad_input, usage
from bntools.tools.data_mix.laws.links import KINDS
from bntools.tools.data_mix.runs.runs import Runs, checked, half_counts

_TRIALS = 10_000.0  # of a share of exactly 0 or 1 that tells no trials
_LINE = 'a line is {"weights": {"web": 0.5, "code": 0.5}, "n": 1000, "metric": 0.213, "kind": "error"}'
_OWN = ("n", "metric", "kind", "seed", "trials", "failed")


class Reading(NamedTuple):
    """How a table is read: kind overrides what lines say; higher: a metric without a kind is a score."""

    kind: str | None = None
    normalize: bool = False
    allow_failed: bool = False
    higher: bool = False


def read_runs(source: str, reading: Reading = Reading()) -> Runs:
    """Runs of a file of JSON lines or a csv; `-` is standard input.

    A csv has the columns n, metric, and optionally kind, seed, trials and domain:NAME; every other column, with
    or without `weights.` before its name, is a source. Raises BnError: exit 2 for a file that is not there, 3 for
    what is no run.
    """
    try:
        if source == "-":
            lines = sys.stdin.buffer.read()
        else:
            with open(source, "rb") as file:
                lines = file.read()
    except OSError as error:
        raise usage(f"cannot read {source}: {error.strerror}", "a table of runs: .jsonl or .csv") from None
    if lines.lstrip()[:1] in (b"{", b""):
        return from_records(_parsed(lines.splitlines()), reading)
    if lines.lstrip()[:1] == b"[":
        try:
            return from_records(enumerate(json.loads(lines), 1), reading)
        except ValueError as error:
            raise bad_input(f"{source} is not JSON: {error}", _LINE) from None
    return from_records(_rows(source, lines), reading)


def _parsed(lines: Iterable[bytes]) -> Iterable[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise bad_input(f"line {number} is not JSON: {error}", _LINE) from None


def _rows(source: str, content: bytes) -> Iterable[tuple[int, dict[str, Any]]]:
    """The lines of a csv as records."""
    if source == "-":
        import tempfile

        with tempfile.NamedTemporaryFile(suffix=".csv") as file:
            file.write(content)
            file.flush()
            return list(_rows(file.name, b""))
    with open_table(source) as table:
        columns = {name: table.column(name).tolist() for name in table.names}
        rows = table.rows
    records = []
    for index in range(rows):
        record: dict[str, Any] = {"weights": {}, "domains": {}}
        for name, values in columns.items():
            if name in _OWN:
                record[name] = values[index]
            elif name.startswith("domain:"):
                record["domains"][name[7:]] = values[index]
            else:
                record["weights"][name.removeprefix("weights.")] = values[index]
        records.append((index + 2, record))
    return records


def from_records(records: Iterable[tuple[int, Any]], reading: Reading = Reading()) -> Runs:
    """Runs of numbered records; all have the same sources where `weights` of the first names them all or not.

    A source that a run does not name has weight 0 there, if some other run names it. Raises BnError (exit 3).
    """
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for number, record in records:
        row = _row(number, record, reading)
        if math.isnan(row["metric"]):
            if not reading.allow_failed:
                raise bad_input(f"line {number}: the run has no metric (it failed)", "--allow-failed leaves such runs out")
            failed.append(f"line {number}")
        else:
            rows.append(row)
    if not rows:
        raise bad_input("no runs", _LINE)
    kinds = sorted({row["kind"] for row in rows})
    if len(kinds) > 1:
        raise bad_input(f"metrics of several kinds: {', '.join(kinds)}", "one table has one kind of metric")
    sources = tuple(dict.fromkeys(name for row in rows for name in row["weights"]))
    weights = np.array([[row["weights"].get(name, 0.0) for name in sources] for row in rows])
    metric = np.array([row["metric"] for row in rows])
    if kinds[0] in ("error", "accuracy"):
        metric = half_counts(metric, np.array([row["trials"] for row in rows])) if _shares(metric) else metric
    domains = _domains(rows)
    runs = Runs(
        sources, weights, np.array([row["n"] for row in rows]), metric, kinds[0],
        np.array([row["seed"] for row in rows]), domains,
        tuple(failed),
    )  # fmt: skip
    return checked(runs, reading.normalize)


def _shares(metric: Any) -> bool:
    return bool(((metric >= 0) & (metric <= 1)).all())


def _domains(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Domains that all runs tell."""
    names = [n for n in dict.fromkeys(n for row in rows for n in row["domains"])
             if all(n in row["domains"] for row in rows)]  # fmt: skip
    return {name: np.array([row["domains"][name] for row in rows]) for name in names}


def _row(number: int, record: Any, reading: Reading) -> dict[str, Any]:
    """One run, its numbers checked."""
    if not isinstance(record, dict) or not isinstance(record.get("weights"), dict):
        raise bad_input(f"line {number} has no weights", _LINE)
    kind = reading.kind or record.get("kind") or ("score" if reading.higher else None)
    if kind not in KINDS:
        what = "has no kind" if kind is None else f"has the kind {kind!r}"
        raise bad_input(f"line {number} {what}", f"--kind {', '.join(KINDS)}")
    empty = record.get("metric") in (None, "")
    row = {
        "weights": _numbers(number, "weights", record["weights"]),
        "domains": _numbers(number, "domains", record.get("domains") or {}),
        "n": _number(number, "n", record.get("n")),
        "metric": math.nan if empty else _number(number, "metric", record["metric"], nan=True),
        "kind": kind,
        "seed": int(_number(number, "seed", record.get("seed") or 0)),
        "trials": _number(number, "trials", record.get("trials") or _TRIALS),
    }
    return row


def _numbers(number: int, what: str, values: Any) -> dict[str, float]:
    if not isinstance(values, Mapping):
        raise bad_input(f"line {number}: {what} is not an object of numbers", _LINE)
    return {str(name): _number(number, f"{what}.{name}", value) for name, value in values.items()}


def _number(number: int, what: str, value: Any, nan: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_input(f"line {number}: {what} is {json.dumps(value, default=str)[:40]}, not a number", _LINE)
    if math.isinf(value) or (math.isnan(value) and not nan):
        raise bad_input(f"line {number}: {what} is {value}", _LINE)
    return float(value)


def is_table(source: str) -> bool:
    """Whether a path names a table of runs rather than sources of rows."""
    return source == "-" or os.path.splitext(source)[1].lower() in (".jsonl", ".json", ".csv", ".tsv", ".ndjson")
