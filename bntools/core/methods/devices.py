"""Device files: peak rates, bandwidth and memory of a machine, as its vendor states or somebody measured them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bntools.core.artifact.reader import parse_json
from bntools.core.errors import bad_input, usage

BUILT_IN = Path(__file__).resolve().parents[2] / "data" / "devices"
RATES = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4")
_WIDER = {  # types whose units compute what has none of its own, the best first
    "bf16": ("bf16", "fp16", "tf32", "fp32"), "fp16": ("fp16", "bf16", "tf32", "fp32"), "fp32": ("fp32",),
    "fp64": ("fp64",), "tf32": ("tf32", "fp32"), "fp8": ("fp8", "bf16", "fp16", "fp32"),
    "int8": ("int8", "bf16", "fp16", "fp32"), "fp4": ("fp4", "fp8", "bf16", "fp16", "fp32"),
}  # fmt: skip
_PAGE = "see DEVICE FILES in bntools-cost(1)"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Device:
    """peak: FLOP/s by type, dense; bandwidth: bytes a second; memory: bytes; sram: bytes of one multiprocessor."""

    name: str
    peak: Mapping[str, float]
    bandwidth: float
    memory: float | None = None
    sram: int | None = None
    processors: int | None = None
    source: str = ""
    date: str = ""
    notes: tuple[str, ...] = field(default=())

    def rate(self, dtype: str) -> tuple[float, str]:
        """FLOP/s for a type and the type whose rate that is: the own one, or the best of the wider ones."""
        for kind in _WIDER.get(dtype, (dtype,)):
            if kind in self.peak:
                return self.peak[kind], kind
        kind = max(self.peak, key=lambda name: self.peak[name])
        return self.peak[kind], kind

    def ridge(self, dtype: str) -> float:
        """FLOPs a byte above which compute limits."""
        return self.rate(dtype)[0] / self.bandwidth


def open_device(name: str) -> Device:
    """A device by path, or by name in the working folder, the user's and the built-in ones, in this order.

    Raises BnError: exit 2 for a name nothing answers to, 3 for a file that lacks what it must say.
    """
    candidates = [Path(name)] if "/" in name or name.endswith(".json") else []
    if _NAME.fullmatch(name):
        candidates += [folder / f"{name}.json" for folder in (Path(), user_folder(), BUILT_IN)]
    for path in candidates:
        if path.is_file():
            return parse_device(parse_json(path.read_bytes(), dict, str(path)), str(path))
    raise usage(f"no device {name}", f"a JSON file, or one of {', '.join(device_names())}")


def user_folder() -> Path:
    root = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(root) / "bntools" / "devices"


def device_names() -> list[str]:
    """Names that `open_device` knows besides the files of the working folder."""
    names = [path.stem for folder in (BUILT_IN, user_folder()) for path in sorted(folder.glob("*.json"))]
    return list(dict.fromkeys(names))


def parse_device(value: Mapping[str, Any], label: str) -> Device:
    """A device of its JSON; BnError (exit 3) naming the key that is missing or is no positive number."""
    peak = value.get("peak")
    if not isinstance(peak, dict) or not peak:
        raise bad_input(f"{label} lacks peak", 'for example "peak": {"fp32": 1e12}, in FLOP/s')
    unknown = [kind for kind in peak if kind not in RATES]
    if unknown:
        raise bad_input(f"{label}: peak.{unknown[0]} is no known type", f"known are {', '.join(RATES)}")
    rates = {kind: _number(peak, kind, label, prefix="peak.") for kind in peak}
    bandwidth = _number(value, "bandwidth", label)
    assert bandwidth is not None
    sram = value.get("sram")
    inner = sram if isinstance(sram, dict) else {}
    per_sm, sms = (_number(inner, key, label, prefix="sram.", optional=True) for key in ("per_sm", "sms"))
    return Device(
        str(value.get("name", Path(label).stem)), {kind: rate for kind, rate in rates.items() if rate}, bandwidth,
        _number(value, "memory", label, optional=True), int(per_sm) if per_sm else None,
        int(sms) if sms else None, str(value.get("source", "")), str(value.get("date", "")),
    )  # fmt: skip


def _number(
    values: Mapping[str, Any], key: str, label: str, *, prefix: str = "", optional: bool = False
) -> float | None:
    value = values.get(key)
    if value is None and optional:
        return None
    if value is None:
        raise bad_input(f"{label} lacks {prefix}{key}", _PAGE)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise bad_input(f"{label}: {prefix}{key} is {value!r}, not a positive number", _PAGE)
    return float(value)
