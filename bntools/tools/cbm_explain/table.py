"""Explanations on a terminal: tables, and bars of contributions."""

from __future__ import annotations

from typing import Any

from bntools import terminal

_BAR = 20


def draw(console: Any, report: dict[str, Any]) -> None:
    """Whichever explanation it is."""
    {
        "cbm-explanation": _local, "cbm-global": _overall, "cbm-intervention": _intervention, "cbm-change": _change,
        "ecbm-explanation": _energies, "ecbm-change": _change, "ecbm-global": _conditionals,
        "motif-explanation": _sequence, "motif-global": _overall, "plan": _plan,
    }[report["kind"]](console, report)  # fmt: skip


def _plan(console: Any, report: dict[str, Any]) -> None:
    rows = [[key, f"{value:,}"] for key, value in report.items() if key != "kind"]
    console.print(terminal.table(["plan", "value"], rows))


def _local(console: Any, report: dict[str, Any]) -> None:
    parts = report["contributions"]
    largest = max((abs(c["contribution"]) for c in parts), default=1.0)
    rows = [
        [c["concept"], *(f"{c[key]:+.2f}" for key in ("score", "weight")), f"{c['contribution']:+.3f}",
         _bar(c["contribution"] / largest)]
        for c in parts
    ]  # fmt: skip
    rows += [
        ["other concepts", "", "", f"{report['rest']:+.3f}", ""],
        ["bias", "", "", f"{report['bias']:+.3f}", ""],
    ]
    if report["residual"]:
        rows.append(["residual (no concept)", "", "", f"{report['residual']:+.3f}", ""])
    rows.append([f"logit of {report['predicted']}", "", "", f"{report['logit']:+.3f}", ""])
    table = terminal.table(["concept", "score (sd)", "weight", "contribution", ""], rows)
    table.columns[4].justify = "left"
    console.print(table)
    truth = f", labelled {report['truth']}" if report["truth"] else ""
    console.print(f"row {report['row']}: {report['predicted']}, {100 * report['probability']:.1f} %{truth}")
    if report["name"]:
        console.print(report["name"], markup=False)
    change = report["counterfactual"]
    if change is None:
        console.print("no move of its concepts within 3 deviations changes the class")
    else:
        moves = ", ".join(f"{c['concept']} {c['from']:+.2f} to {c['to']:+.2f}" for c in change["changes"])
        console.print(f"it would be {change['class']} with {moves}", markup=False)
    for entry in report.get("maps", [])[:3]:
        console.print(f"{entry['concept']}, where it is:", markup=False)
        console.print(_shades(entry["map"]))


def _bar(share: float) -> str:
    return ("█" if share >= 0 else "░") * max(1, round(abs(share) * _BAR))


def _overall(console: Any, report: dict[str, Any]) -> None:
    rows = [
        [
            c["class"],
            f"{c['rows']:,}",
            ", ".join(f"{k['concept']} {100 * k['share']:.0f} %" for k in c["concepts"][:4]),
        ]
        for c in report["classes"]
    ]
    table = terminal.table(["class", "rows", "share of its contributions"], rows)
    table.columns[2].no_wrap, table.columns[2].justify = False, "left"
    console.print(table)
    if "coverage" not in report:
        return
    covered = ", ".join(f"{share} %: {count:.1f}" for share, count in report["coverage"].items())
    console.print(f"concepts that make up a row's contributions, {covered}")


def _intervention(console: Any, report: dict[str, Any]) -> None:
    rows = [
        [str(p["corrected"]), f"{100 * p['accuracy']['value']:.1f}", f"{100 * p['gain']:+.1f}",
         f"{100 * q['accuracy']['value']:.1f}"]
        for p, q in zip(report["curve"], report["random"], strict=True)
    ]  # fmt: skip
    heads = ["corrected in each row", f"{report['policy']} (%)", "gain (points)", "random (%)"]
    console.print(terminal.table(heads, rows))
    console.print(
        f"{report['rows']:,} rows, {report['concepts']} annotated concepts; all corrected: "
        f"{100 * report['all_concepts']['value']:.1f} %"
    )


def _change(console: Any, report: dict[str, Any]) -> None:
    rows = [[c["class"], f"{100 * c['before']:.1f}", f"{100 * c['after']:.1f}"] for c in report["classes"]]
    console.print(terminal.table(["class", "before (%)", "after (%)"], rows))
    if "concepts" in report:
        moved = [
            [c["concept"], f"{100 * c['before']:.1f}", f"{100 * c['after']:.1f}"] for c in report["concepts"]
        ]
        console.print(
            terminal.table(["concept", "before (%)", "after (%)"], moved or [["none moves", "", ""]])
        )


def _shades(grid: list[list[float]]) -> str:
    """A map in five greys, from its lowest value to its highest."""
    low, high = min(map(min, grid)), max(map(max, grid))
    step = max(high - low, 1e-12)
    return "\n".join("".join(2 * " ░▒▓█"[min(4, int(5 * (v - low) / step))] for v in line) for line in grid)


def _energies(console: Any, report: dict[str, Any]) -> None:
    keys = ("probability", "without_concepts")
    rows = [[c["class"], *(f"{100 * c[key]:.1f}" for key in keys)] for c in report["classes"]]
    console.print(terminal.table(["class", "%", "of the row alone (%)"], rows))
    keys = ("probability", "without_classes", "given_class")
    rows = [[c["concept"], *(f"{100 * c[key]:.1f}" for key in keys)] for c in report["concepts"]]
    heads = ["concept", "%", "of the row alone (%)", f"if {report['predicted']} (%)"]
    console.print(terminal.table(heads, rows))
    truth = f", labelled {report['truth']}" if report["truth"] else ""
    console.print(f"row {report['row']}: {report['predicted']}, {100 * report['probability']:.1f} %{truth}")


def _conditionals(console: Any, report: dict[str, Any]) -> None:
    def listed(concepts: list[dict[str, Any]]) -> str:
        return ", ".join(
            f"{k['concept']} {100 * k['probability']:.0f} % ({100 * k['in_all']:.0f})" for k in concepts[:4]
        )

    rows = [[c["class"], f"{100 * c['probability']:.1f}", listed(c["concepts"])] for c in report["classes"]]
    if report["concepts"] is not None:
        rows.append(["any", "100", listed(report["concepts"])])
    given = f"with {report['given']} (without it known)" if report["given"] else "in the class (in all rows)"
    table = terminal.table(["class", "rows (%)", f"concepts likelier {given}"], rows)
    table.columns[2].no_wrap, table.columns[2].justify = False, "left"
    console.print(table)


def _sequence(console: Any, report: dict[str, Any]) -> None:
    parts = report["contributions"]
    largest = max((abs(c["contribution"]) for c in parts), default=1.0)
    rows = [
        [c["concept"], str(c["window"]), f"{c['contribution']:+.3f}", _bar(c["contribution"] / largest)]
        for c in parts
    ]
    rows += [[name, "", f"{report[name]:+.3f}", ""] for name in ("rest", "bias", "spread")]
    rows.append([f"logit of {report['predicted']}", "", f"{report['logit']:+.3f}", ""])
    table = terminal.table(["concept", "window", "contribution", ""], rows)
    table.columns[3].justify = "left"
    console.print(table)
    most = max(report["time"], key=lambda entry: entry["share"])
    truth = f", labelled {report['truth']}" if report["truth"] else ""
    console.print(
        f"sequence {report['sequence']}: {report['predicted']}, {100 * report['probability']:.1f} %{truth}; "
        f"window {most['window']} of {report['windows']} has {100 * most['share']:.0f} % of the say"
    )
