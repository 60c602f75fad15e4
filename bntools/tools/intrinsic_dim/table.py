"""The report on a terminal."""

from __future__ import annotations

from typing import Any

from bntools import terminal
from bntools.tools.intrinsic_dim.report import dimension_key, interval


def draw(console: Any, report: dict[str, Any]) -> None:
    """Print a report of kind `intrinsic-dim`, of a grid, or of a part."""
    if report["kind"] == "part":
        return console.print(f"part {report['shard']}: {report['runs']} runs")
    if "grid" in report:
        return _grid(console, report)
    key = dimension_key(report)
    unit = 100 if report["scored"] == "accuracy" else 1
    base = report["baseline"]
    rows = [
        [
            f"all {report['D']:,}",
            _score(unit * base["mean"]),
            _score(unit * base["se"]),
            "",
            f"{base['lr']:.2g}",
            "",
        ]
    ]
    rows += [
        [f"{c['dim']:,}", _score(unit * c["mean"]), _score(unit * c["se"]), _score(unit * c["fit"]),
         f"{c['lr']:.2g}" if c["lr"] else "", str(c["runs"])]
        for c in report["curve"]
    ]  # fmt: skip
    name = "accuracy (%)" if unit == 100 else report["scored"]
    console.print(terminal.table(["dimensions", name, "± se", "fit", "learning rate", "runs"], rows))
    console.print(
        f"{report['model']}: {key} {interval(report[key])}, target {_score(unit * report['target'])}"
    )
    if report.get("network"):
        kept = report["network"]
        console.print(
            f"network: {kept['dim']} numbers in {kept['bytes']:,} bytes ({kept['codes']}), {name} "
            f"{_score(unit * kept['score'])}, 1/{kept['ratio']:g} of the weights"
        )
    return None


def _grid(console: Any, report: dict[str, Any]) -> None:
    key = dimension_key(report["grid"][0])
    rows = [
        [cell["model"], f"{cell['D']:,}", interval(cell[key]), f"{cell['baseline']['mean']:.4f}"]
        for cell in report["grid"]
    ]
    console.print(terminal.table(["network", "parameters", f"{key} (95 %)", "baseline"], rows))


def _score(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1000 else terminal.three(value)
