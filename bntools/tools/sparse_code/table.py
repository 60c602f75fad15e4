"""The report as tables of a terminal."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def draw(console: Any, report: dict[str, Any]) -> None:
    """Baselines first, then the encoder and pursuit, and what was set aside."""
    three = terminal.three
    rows = []
    base = report.get("baseline")
    if base:
        rows.append(
            [f"{base['pca']['components']} principal components", three(base["pca"]["fvu"]), "-", "-", "-"]
        )
        rows.append(
            ["random directions, pursuit", three(base["random"]["fvu"]), "-", "-", str(base["random"]["k"])]
        )
    for name in ("encoder", "pursuit"):
        part = report.get(name)
        if part:
            fvu = part["fvu"]
            rows.append(
                [
                    name,
                    three(fvu["value"]),
                    three(fvu["se"]),
                    three(part["fvu_without_top8"]),
                    three(part["l0"]["mean"]),
                ]
            )
    title = f"{report['method']}: {report['latents']:,} latents of width {report['width']:,}"
    console.print(terminal.table([title, "FVU", "±", "FVU less 8 PCs", "L0"], rows))
    counts = report["rows"]
    dead = report.get("dead", 0)
    console.print(
        f"{counts['train']:,} rows in training, {counts['scored']:,} others scored, {dead:,} latents dead"
    )
    if counts["outliers"]:
        tail = f", FVU {three(report['fvu_outliers'])}" if "fvu_outliers" in report else ""
        console.print(f"{counts['outliers']:,} outlier rows set aside{tail}")
