"""A sparse fit as tables for a terminal."""

from __future__ import annotations

from typing import Any

from bntools import terminal

_ROWS = 20


def draw(console: Any, report: dict[str, Any]) -> None:
    """The selected columns, and the fit beside the lasso's and that of the mean alone."""
    three = terminal.three
    rows = [
        [entry["name"], three(entry["coefficient"]), three(entry["standardised"])]
        for entry in report["selected"][:_ROWS]
    ]
    rows.append(["(intercept)", three(report["intercept"]), ""])
    console.print(terminal.table(["column", "coefficient", "standardised"], rows))
    if len(report["selected"]) > _ROWS:
        console.print(f"and {len(report['selected']) - _ROWS:,} more: --json has all")
    base = report["baseline"]
    rows = [
        ["mean alone", "0", three(report["null_loss"]), "-"],
        ["lasso", str(base["columns"]), *_loss(base)],
        [report["penalty"], str(len(report["selected"])), *_loss(report)],
    ]
    console.print(terminal.table([f"chosen by {report['choose']}", "columns", "held-out loss", "± se"], rows))
    console.print(
        f"{report['family']}, {report['rows']:,} rows, {report['columns']:,} columns; lambda {three(report['lambda'])}"
        + (", the last of the path: a smaller --ratio may fit better" if report["at_end"] else "")
    )


def _loss(entry: dict[str, Any]) -> list[str]:
    loss = entry["held_out_loss"]
    return [terminal.three(loss["mean"]), terminal.three(loss["se"])]
