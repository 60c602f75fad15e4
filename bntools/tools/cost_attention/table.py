"""The counts as tables."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def draw(console: Any, report: dict[str, Any]) -> None:
    rows = []
    baseline = [report["baseline"]] if report["baseline"] else []
    for plan in (*baseline, *report["alternatives"]):
        mark = " *" if plan["order"] == report["order"] else ""
        tile = f"{plan['tiles']['rows']:,} x {plan['tiles']['columns']:,}"
        if plan["order"] == "standard":
            tile = "-"
        rows.append([f"{plan['order']}{mark}", tile, terminal.three(plan["elements"]),
                     terminal.three(plan["bytes"]), terminal.three(plan["over_compulsory"]),
                     terminal.three(plan["flops"])])  # fmt: skip
    headers = ["order", "tile", "elements moved", "bytes", "over least", "FLOPs"]
    console.print(terminal.table(headers, rows))
    bound, memory = report["bound"], report["memory"]
    console.print(f"* {report['why']}")
    console.print(
        f"fast memory: {memory['elements']:,} elements, {terminal.three(memory['over_d2'])} d^2, "
        f"{memory['resident']:,} used; {bound['expression']} = {terminal.three(bound['value'])}, moved "
        f"{terminal.three(report['ratio']['bound'])} times it"
    )
    for policy, count in report.get("simulated", {}).items():
        console.print(f"{policy}: {count:,} elements, one attention")
    for name, time in report["devices"].items():
        console.print(f"{name}: {terminal.three(time['seconds'])} s at least, bound by {time['bound']}")
