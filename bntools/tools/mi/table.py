"""What a person sees of the reports of mi."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def draw_pair(console: Any, report: dict[str, Any]) -> None:
    three, units = terminal.three, report["units"]
    rows = [
        [
            "mutual information",
            f"{three(report['value'])} ({three(report['low'])} to {three(report['high'])})",
        ],
        ["cap", three(report["cap"])],
        ["rows permuted", three(report["baseline"]["permuted"])],
        ["flags", ", ".join(report["flags"]) or "none"],
        ["estimator", report["estimator"]],
        ["why", report["why"]],
        ["rows, dimensions", f"{report['rows']:,}, {report['dimensions'][0]} and {report['dimensions'][1]}"],
    ]
    console.print(terminal.facts(units, rows))
    rows = [
        [name, three(value), "yes" if name in report["votes"] else "no", _tests(report, name)]
        for name, value in report["estimators"].items()
    ]
    headers = ["estimator", units, "vote", "self-test"]
    width = 4 if "selftest" in report else 3
    console.print(terminal.table(headers[:width], [row[:width] for row in rows]))


def _tests(report: dict[str, Any], name: str) -> str:
    entry = report.get("selftest", {}).get(name)
    if entry is None:
        return "-"
    failed = [test for test, result in entry["tests"].items() if not result["passed"]]
    return "passed" if not failed else "fails " + ", ".join(failed)


def draw_rank(console: Any, report: dict[str, Any]) -> None:
    three = terminal.three
    rows = [
        [e["name"], three(e["value"]), f"{three(e['low'])} to {three(e['high'])}", three(e["permuted"]),
         three(e["cap"]), ", ".join(e["flags"]) or "-"]
        for e in report["columns"]
    ]  # fmt: skip
    headers = [f"column, with {report['target']}", report["units"], "95 %", "permuted", "cap", "flags"]
    console.print(terminal.table(headers, rows))


def draw_bench(console: Any, report: dict[str, Any]) -> None:
    three = terminal.three
    rows = [
        [e["task"], three(e["truth"]), three(e["value"]), f"{three(e['low'])} to {three(e['high'])}",
         three(e["ksg"]), three(e["gaussian"])]
        for e in report["tasks"]
    ]  # fmt: skip
    console.print(terminal.table(["task, nats", "truth", "mi", "95 %", "KSG", "gaussian"], rows))
    errors = report["mean_absolute_error"]
    console.print(
        f"mean absolute error {errors['value']:.3f} nats; plain KSG {errors['ksg']:.3f}, linear correlation "
        f"{errors['gaussian']:.3f}; {report['covered']:.0%} of the intervals hold the truth"
    )
