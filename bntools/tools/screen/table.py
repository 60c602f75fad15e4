"""A screening as tables for a terminal."""

from __future__ import annotations

from typing import Any

from bntools import terminal

_ROWS = 20


def draw(console: Any, report: dict[str, Any]) -> None:
    """The best columns beside their plain correlation, and the counts."""
    three = terminal.three
    rows = []
    for entry in report["best"][:_ROWS]:
        p = "-" if entry["p"] is None else _small(entry["p"]) + ("*" if entry["extrapolated"] else "")
        q = "-" if entry["q"] is None else _small(entry["q"])
        rows.append(
            [
                entry["name"],
                three(entry["statistic"]),
                p,
                q,
                _small(entry["p_linear"]),
                "yes" if entry["selected"] else "",
            ]
        )
    statistic = {"pearson": "r", "xi": "xi"}.get(report["method"], "nats")
    console.print(terminal.table(["column", statistic, "p", "q", "p, linear", "selected"], rows))
    for line in _lines(report):
        console.print(line)


def _lines(report: dict[str, Any]) -> list[str]:
    columns, baseline, outcome = report["columns"], report["baseline"], report["outcome"]
    left_out = [
        f"{columns[key]:,} {what}"
        for key, what in (("constant", "constant"), ("too_short", "known on too few rows"), ("text", "text"))
        if columns[key]
    ]
    lines = [
        f"{columns['scored']:,} columns scored against {report['target']} ({outcome['kind']}, {outcome['rows']:,} rows)"
        + (f"; left out: {', '.join(left_out)}" if left_out else "")
    ]
    if report["selected"] is not None:
        lines.append(
            f"selected at false discovery rate {report['fdr']:g}: {report['selected']:,}; "
            f"Pearson's correlation selects {baseline['selected']:,}, "
            f"{baseline['shared']:,} of the best {baseline['among']:,} shared"
        )
    if any(entry["extrapolated"] for entry in report["best"][:_ROWS]):
        lines.append(f"* beyond {report['permutations']:,} permutations: by an exponential tail")
    return lines


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}" if value < 0.001 else f"{value:.3f}"
