"""Training runs as JSON lines: model size N, data size D or compute C, and the loss reached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bntools.core.errors import BnError, bad_input, usage
from bntools.tools.scale_fit.laws import Array

VARIABLES = ("N", "D", "C")
FLOPS = 6
"""Training FLOPs a parameter and token: C = 6 N D (Kaplan et al., arXiv 2001.08361, section 2.1)."""

Skip = Callable[[int, str], None]


@dataclass(frozen=True)
class Runs:
    """loss [runs] in any unit, the variables known of every run [runs] by name, and the line each came from."""

    loss: Array
    values: Mapping[str, Array]
    lines: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, column in {"loss": self.loss, **self.values}.items():
            if (
                np.shape(column) != np.shape(self.loss)
                or not (np.isfinite(column) & (np.asarray(column) > 0)).all()
            ):
                raise bad_input(f"{name} must be {len(self.loss)} finite numbers above 0")
        if not self.lines:
            object.__setattr__(self, "lines", list(range(1, len(self.loss) + 1)))

    def varying(self) -> list[str]:
        """Names of the variables that take more than one value."""
        return [name for name in VARIABLES if name in self.values and np.ptp(self.values[name]) > 0]


def training_runs(loss: Any, *, N: Any = None, D: Any = None, C: Any = None) -> Runs:
    """Runs from array-likes; of N, D and C any two give the third by C = 6 N D. Raises BnError (exit 3)."""
    given = {
        name: np.asarray(v, float) for name, v in zip(VARIABLES, (N, D, C), strict=True) if v is not None
    }
    if not given:
        raise bad_input("no variable: give N, D or C")
    return Runs(np.asarray(loss, float), _completed(given))


def _completed(given: dict[str, Array]) -> dict[str, Array]:
    """The third of N, D, C where two are known."""
    if set(given) == {"N", "C"}:
        given["D"] = given["C"] / (FLOPS * given["N"])
    elif set(given) == {"D", "C"}:
        given["N"] = given["C"] / (FLOPS * given["D"])
    elif set(given) == {"N", "D"}:
        given["C"] = FLOPS * given["N"] * given["D"]
    return given


def column_names(text: str | None) -> dict[str, str]:
    """Keys of a line by what they mean, from `N=params,D=tokens,loss=val_loss`. Raises BnError (exit 2)."""
    names = {name: name for name in (*VARIABLES, "loss")}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        meaning, equals, key = (word.strip() for word in part.partition("="))
        if meaning not in names or not equals or not key:
            raise usage(
                f"--columns {part.strip()!r} is not N, D, C or loss = KEY", "--columns N=params,loss=val_loss"
            )
        names[meaning] = key
    return names


class _MissingKeyError(ValueError):
    """A line lacks what the fit needs."""


def _keys(line: bytes) -> str:
    return ", ".join(json.loads(line))[:80] or "none"


def refuse(number: int, reason: str) -> None:
    """What to do with a bad line unless told to skip it. Raises BnError (exit 3)."""
    raise bad_input(f"line {number}: {reason}", "--skip-bad goes on without it")


def read_runs(lines: Iterable[bytes], names: Mapping[str, str], skip: Skip = refuse) -> Runs:
    """Runs of JSON lines; empty lines are passed over, bad ones go to `skip` with their number and what is wrong.

    The first good line decides which of N, D and C every line must have. Raises BnError (exit 3) where none is good.
    """
    rows: list[dict[str, float]] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            run = _run(line, names, set(rows[0]) if rows else None)
        except _MissingKeyError as error:
            if not rows and skip is refuse:  # all lines are like the first, mostly
                hint = f"--columns N=KEY,D=KEY,loss=KEY; this line has {_keys(line)}"
                raise bad_input(f"line {number}: {error}", hint) from None
            skip(number, str(error))
            continue
        except (ValueError, RecursionError) as error:
            skip(number, f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error))
            continue
        rows.append(run)
        numbers.append(number)
    if not rows:
        raise bad_input("no runs to fit", 'a line is {"N": parameters, "D": tokens, "loss": loss}')
    columns = {name: np.array([run[name] for run in rows]) for name in rows[0]}
    loss = columns.pop("loss")
    return Runs(loss, _completed(columns), numbers)


def _run(line: bytes, names: Mapping[str, str], wanted: set[str] | None) -> dict[str, float]:
    """One line's numbers by meaning. Raises ValueError with what is wrong."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start})") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    run = {meaning: _number(key, value[key]) for meaning, key in names.items() if value.get(key) is not None}
    if "loss" not in run:
        raise _MissingKeyError(f"no key {names['loss']!r} (the loss)")
    if wanted is None and len(run) < 2:
        raise _MissingKeyError(f"none of the keys {', '.join(repr(names[v]) for v in VARIABLES)}")
    missing = sorted((wanted or set()) - set(run))
    if missing:
        raise ValueError(f"no key {names[missing[0]]!r}, which earlier lines have")
    if {"N", "D", "C"} <= set(run) and (wanted is None or "C" in wanted):
        del run["C"]  # what was measured wins over a product of it
    return {name: run[name] for name in run if wanted is None or name in wanted}


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is {json.dumps(value)[:40]}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{key} is {number:g}, not a finite number above 0")
    return number


def assignment(option: str, text: str) -> dict[str, float]:
    """`N=1e9,D=2e10` as numbers by name. Raises BnError (exit 2)."""
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in VARIABLES or name in values or not (math.isfinite(number) and number > 0):
            raise usage(
                f"{option} {text!r}: {part.strip()!r} is not N, D or C = a number above 0",
                f"{option} N=1e9,D=2e10",
            )
        values[name] = number
    return {
        name: float(value)
        for name, value in _completed({k: np.float64(v) for k, v in values.items()}).items()
    }


def check_count(runs: Runs, parameters: int) -> None:
    """Refuse to fit fewer runs than the law has parameters, or as many. Raises BnError (exit 3)."""
    count = len(runs.loss)
    if count <= parameters:
        raise BnError(
            f"{count} runs cannot fix {parameters} parameters",
            "add runs, or take a law with fewer: --law power",
            3,
        )
