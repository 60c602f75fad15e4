"""What a person sees of a sweep: a row a network."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def draw(console: Any, report: dict[str, Any]) -> None:
    three = terminal.three
    base = report["baseline"]
    rows = [
        ["mean alone", "-", three(base["mean_rmse"]), "-", "-", "-", "-"],
        ["least squares", "-", three(base["linear_rmse"]), "-", "-", "-", "-"],
    ]
    for run in report["runs"]:
        mark = " *" if {key: run[key] for key in ("method", "beta")} == report["chosen"] else ""
        rows.append([
            run["method"] + mark, "-" if run["method"] == "mse" else f"{run['beta']:g}", three(run["rmse"]["mean"]),
            three(run["rmse"]["se"]), three(run["information"]), three(run["compression"]),
            three(run["fgsm"][-1]["mean"]),
        ])  # fmt: skip
    last = report["runs"][0]["fgsm"][-1]["epsilon"]
    headers = [report["target"], "beta", "RMSE", "± se", "I(x; t)", "compression", f"RMSE, attack {last:g}"]
    console.print(terminal.table(headers, rows))
    counts = report["rows"]
    console.print(
        f"* written, chosen on {counts['validation']:,} validation rows; {counts['train']:,} to train, "
        f"{counts['test']:,} to test; I(x; t): Cauchy-Schwarz, normalised; compression against squared error's"
    )
