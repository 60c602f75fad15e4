"""A table of synthesised networks: JSON lines or CSV, under the names that several benchmarks use."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bntools.core.errors import BnError, bad_input, usage
from bntools.tools.cost_fpga.first_order import TARGETS
from bntools.tools.cost_fpga.network import Defaults, Layer, parse_network

FEWEST = 50
ALIASES = {
    "dsp": ("dsp", "DSP", "dsp48e", "dsps"), "lut": ("lut", "LUT", "luts"), "ff": ("ff", "FF", "ffs"),
    "bram": ("bram", "BRAM", "bram_18k", "BRAM_18K", "bram18"),
    "cycles": ("cycles", "CYCLES", "cycles_max", "latency", "latency_max"),
    "interval": ("interval", "INTERVAL", "interval_max", "ii", "II"),
}  # fmt: skip


class Sample(NamedTuple):
    """One synthesised network: what groups it, its layers, and the measured targets by name."""

    group: str
    layers: list[Layer]
    measured: dict[str, float]


def read_samples(path: str, defaults: Defaults) -> list[Sample]:
    """Lines with `layers` and targets; of a CSV, `layers` holds JSON.

    Raises BnError: exit 2 for a file that cannot be opened, 3 for a damaged line or fewer than 50.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise usage(f"cannot open {path}: {error.strerror}", "check the path") from None
    except UnicodeDecodeError:
        raise bad_input(f"{path} is not text", "JSON lines, or CSV") from None
    samples = [_sample(value, f"{path}, row {number}", defaults) for number, value in _values(text, path)]
    if len(samples) < FEWEST:
        raise bad_input(f"{path} has {len(samples)} rows, {FEWEST} are needed", "synthesise more networks")
    missing = [name for name in TARGETS if not all(name in sample.measured for sample in samples)]
    if missing:
        raise bad_input(
            f"{path}: {missing[0]} is missing in some rows", f"its names: {', '.join(ALIASES[missing[0]])}"
        )
    return samples


def _values(text: str, path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if not text.lstrip().startswith("{"):
        for number, row in enumerate(csv.DictReader(io.StringIO(text)), 1):
            if "layers" not in row:
                raise bad_input(f"{path} has no column layers", "JSON of the layers of each network")
            yield number, {**row, "layers": _json(row["layers"] or "", f"{path}, row {number}")}
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            value = _json(line, f"{path}, row {number}")
            if not isinstance(value, dict):
                raise bad_input(f"{path}, row {number} is no object")
            yield number, value


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise bad_input(f"{where} is not JSON") from None


def _sample(value: Mapping[str, Any], where: str, defaults: Defaults) -> Sample:
    layers = parse_network(value, where, defaults)
    measured = {}
    for name, aliases in ALIASES.items():
        cell = next((value[alias] for alias in aliases if value.get(alias) not in (None, "")), None)
        if cell is not None:
            measured[name] = _number(cell, f"{where}: {name}")
    shape = ",".join(f"{layer.kind}{layer.inputs}x{layer.outputs}" for layer in layers)
    return Sample(str(value.get("architecture", shape)), layers, measured)


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < 1e15:
        raise BnError(f"{where} is {value!r}, not a count", "", 3)
    return number
