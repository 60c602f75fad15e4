"""A mixed fit as tables for a terminal."""

from __future__ import annotations

from typing import Any

from bntools import terminal

_ROWS = 10


def draw(console: Any, report: dict[str, Any]) -> None:
    """Fixed effects beside least squares, standard deviations, and who stands out."""
    three = terminal.three
    base = report["baseline"].get("gaussian") or report["baseline"]["least_squares"]
    name = "gaussian" if "gaussian" in report["baseline"] else "least squares"
    rows = [
        [
            entry["name"],
            three(entry["value"]),
            f"{three(entry['low'])} to {three(entry['high'])}",
            three(other["value"]),
        ]
        for entry, other in zip(report["fixed"], base["fixed"], strict=True)
    ]
    console.print(terminal.table(["fixed effect", "value", "95 %", name], rows))
    console.print(terminal.table(["standard deviation", "value", "95 %"], _spreads(report)))
    for line in _lines(report):
        console.print(line)
    if report.get("outliers"):
        console.print(_outliers(report))


def _spreads(report: dict[str, Any]) -> list[list[str]]:
    rows = []
    for term in report["random"]:
        for i, effect in enumerate(term["effects"]):
            sd = effect["sd"]
            rows.append([f"{effect['name']} | {term['group']} ({term['groups']:,})", *_interval(sd)])
            rows += [
                [f"  correlation with {term['effects'][j]['name']}", terminal.three(value), ""]
                for j, value in enumerate(term["correlation"][i])
            ]
    return [*rows, ["error", *_interval(report["error"])]]


def _interval(sd: dict[str, Any]) -> list[str]:
    three = terminal.three
    return [three(sd["value"]), "-" if sd["high"] is None else f"{three(sd['low'])} to {three(sd['high'])}"]


def _lines(report: dict[str, Any]) -> list[str]:
    three = terminal.three
    lines = [f"{report['method']}, {report['rows']:,} rows"]
    if report["deviance"] is not None:
        least = report["baseline"]["least_squares"]["deviance"]
        lines[0] += f", deviance {report['deviance']:,.3f} (without random effects {least:,.3f})"
    if "nu" in report:
        nu = report["nu"]
        high = "infinity" if nu["high"] is None else three(nu["high"])
        ends = "" if nu["low"] is None else f" ({three(nu['low'])} to {high})"
        q = f", q {nu['q']['value']:.4f} for {nu['rows_of_q']:g} rows" if "q" in nu else ""
        lines.append(f"degrees of freedom {three(nu['value'])}{ends}{q}; infinity is Gaussian")
    if report["singular"]:
        lines.append("singular: a variance or correlation stands at its bound; leave an effect out")
    return lines


def _outliers(report: dict[str, Any]) -> Any:
    three = terminal.three
    if "group" in report["outliers"][0]:
        rows = [
            [e["group"], three(e["weight"]), str(e["rows"]), f"{e['p_gaussian']:.1e}"]
            for e in report["outliers"][:_ROWS]
        ]
        return terminal.table(["outlying group", "weight", "rows", "p if Gaussian"], rows)
    rows = [
        [f"{e['row']:,}", three(e["weight"]), ", ".join(f"{k} {v}" for k, v in e["groups"].items())]
        for e in report["outliers"][:_ROWS]
    ]
    return terminal.table(["outlying row (from 0)", "weight", "group"], rows)
