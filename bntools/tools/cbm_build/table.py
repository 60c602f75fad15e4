"""The report of a build as tables."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def percent(value: Any) -> str:
    if isinstance(value, dict):
        value = value["value"]
    return "-" if value is None else f"{100 * value:.1f}"


def summary(report: dict[str, Any]) -> str:
    """One line for standard error."""
    sparsity = "" if report["nec"] is None else f", {report['nec']:.3g} a class"
    return (
        f"{report['classes']} classes, {report['concepts']} concepts{sparsity}; "
        f"training accuracy {percent(report['train_accuracy'])} %"
    )


def draw(console: Any, report: dict[str, Any]) -> None:
    test = report.get("test")
    shown = "test (%)" if test else "validation (%)"
    scores = (
        test["baselines"] if test else {n: b["validation_accuracy"] for n, b in report["baselines"].items()}
    )
    rows = [
        [name.replace("_", " "), percent(v)]
        for name, v in scores.items()
        if not name.startswith("random_concepts_")
    ]
    console.print(terminal.table(["baseline", shown], rows))
    if report["path"]:
        path = []
        for index, point in enumerate(report["path"]):
            other = report["baselines"].get(f"random_concepts_{point['nec']}", {}).get("validation_accuracy")
            own = point["validation_accuracy"]
            if test:
                own, other = test["path"][index]["accuracy"], test["path"][index].get("random_concepts")
            path.append([str(point["nec"]), f"{point['weights']:,}", percent(own), percent(other)])
        console.print(terminal.table(["concepts a class", "weights", shown, "random concepts (%)"], path))
    tops = [
        [name, ", ".join(f"{c} {w:+.2f}" for c, w in top)] for name, top in list(report["top"].items())[:12]
    ]
    console.print(terminal.facts("strongest concepts", tops))
    console.print(summary(report) + (f"; test accuracy {percent(test['accuracy'])} %" if test else ""))
    if report.get("audit"):
        console.print(
            terminal.facts(
                "audit",
                [[f["what"], f["detail"]] for f in report["audit"]["findings"]] or [["", "no findings"]],
            )
        )
