"""The sweep as tables for a terminal and as a picture."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def draw(console: Any, report: dict[str, Any]) -> None:
    """The baselines first, then each method at each budget."""
    measure = report["measure"].upper()
    rows = [_row(f"full, {report['full']['d']} numbers a value", "1", report["full"], measure)]
    small = report["baseline"]["small_full"]
    if small:
        rows.append(_row(f"full, {small['d']} a value", "", small, measure))
    for result in report["results"]:
        name = result["method"] + (" *" if result["pareto"] else "")
        rows.append(_row(name, result["budget_name"], result, measure))
    heads = ["table", "budget", "kB", measure, "change", "± se"]
    console.print(terminal.table(heads, rows))
    fields = ", ".join(f"{f['name']} {f['values']:,}" for f in report["fields"])
    console.print(
        f"values: {fields}; test rows {report['rows']['test']:,}; {report['splits']} splits; * Pareto front"
    )


def _row(name: str, budget: str, result: dict[str, Any], measure: str) -> list[str]:
    value = result["metrics"]["auc"]["value"] if measure == "AUC" else result["metrics"]["rmse"]
    size = (result["bytes"]["embedding"] + result["bytes"]["index"]) / 1000
    change = result["change"]
    own = name.startswith("full, ") and budget == "1"
    return [name, budget, f"{size:,.1f}", f"{value:.4f}", "-" if own else f"{change['mean']:+.4f}",
            "-" if own else f"{change['se']:.4f}"]  # fmt: skip


def notes(report: dict[str, Any]) -> list[str]:
    """What a user is to be told beside the table."""
    said = list(report["notes"])
    said += [
        f"{u['method']} does not fit in {u['budget']:.3g} of the full table" for u in report["unreachable"]
    ]
    below = [f"{r['method']} {r['budget_name']}" for r in report["results"] if r["below_small_full"]]
    if below:
        d = report["baseline"]["small_full"]["d"]
        said.append(f"warning: below a full table of {d} a value, which is smaller: {', '.join(below)}")
    worse = [f"{r['method']} {r['budget_name']}" for r in report["results"] if r.get("over_hash") is False]
    if worse:
        said.append(f"not over plain hashing: {', '.join(worse)}")
    seen = [f for f in report["fields"] if f["coverage"] < 0.9]
    said += [
        f"{f['name']}: {100 * (1 - f['coverage']):.0f} % of test rows have a value unseen in training"
        for f in seen
    ]
    return said


def figure(report: dict[str, Any]) -> Any:
    """Change of the measure against bytes, one line a method, errors as bars, the full tables in grey."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = result.subplots()

    def size(row: dict[str, Any]) -> float:
        return (row["bytes"]["embedding"] + row["bytes"]["index"]) / 1000

    axes.axhline(0, color="0.6", linewidth=1)
    small = report["baseline"]["small_full"]
    if small:
        axes.plot(
            [size(small)], [small["change"]["mean"]], "s", color="0.5", label=f"full, {small['d']} a value"
        )
    markers, styles = "o^vDPX<>ph*", ("-", "--", ":", "-.")
    for index, method in enumerate(dict.fromkeys(row["method"] for row in report["results"])):
        rows = sorted((r for r in report["results"] if r["method"] == method), key=size)
        axes.errorbar(
            [size(r) for r in rows], [r["change"]["mean"] for r in rows],
            [1.96 * r["change"]["se"] for r in rows], marker=markers[index % len(markers)], markersize=4,
            linestyle=styles[index % 4], color=f"{0.7 * (index % 3) / 2:.2f}", linewidth=1, capsize=2, label=method,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("table and index (kB)")
    what = "AUC" if report["measure"] == "auc" else "RMSE saved"
    axes.set_ylabel(f"{what} against the full table ({size(report['full']):,.0f} kB)")
    axes.legend(frameon=False, fontsize=8)
    return result
