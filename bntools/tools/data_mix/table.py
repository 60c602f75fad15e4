"""The report on a terminal."""

from __future__ import annotations

from typing import Any

from bntools.terminal import table, three


def draw(console: Any, report: dict[str, Any]) -> None:
    """Mixture and what it promises first, the baselines next to it, then the rest."""
    console.print(_mixtures(report))
    rows = [
        [f"gain over {name.removeprefix('over_').replace('_', ' ')}", *_interval(gain)]
        for name, gain in report["gain"].items()
    ]
    rows += [["exponent of N at the largest pilot", *_interval(report["slope"])], ["floor", *_interval(report["floor"])]]
    console.print(table(["of the mixture advised", "value", "interval"], rows))
    if report["methods"]:
        console.print(_methods(report))
    if report["next"]:
        console.print(_next(report))
    left = report["leave_out"]
    console.print(
        f"{report['runs']['count']} runs at {len(report['runs']['sizes'])} sizes; mixtures left out are missed by "
        f"{three(left['mae'])} on average (R2 {left['r2']:.2f})"
    )


def _mixtures(report: dict[str, Any]) -> Any:
    sources = report["sources"][:6]
    rows = [_mixture_row(f"{report['method']}: advised", report, sources)]
    if report["decision"] == "best pilot":
        rows.append(_mixture_row("the law's own", report["proposed"], sources))
    rows += [
        _mixture_row(name.replace("_", " "), entry, sources)
        for name, entry in report["baselines"].items()
        if not (name == "best_pilot" and report["decision"] == "best pilot")
    ]
    headers = [f"mixture at {report['at']:,}", *sources, report["metric"], "interval"]
    return table(headers, rows)


def _mixture_row(title: str, entry: dict[str, Any], sources: list[str]) -> list[str]:
    return [title, *(f"{entry['mixture'][name]:.3f}" for name in sources), *_interval(entry["predicted"])]


def _interval(value: dict[str, Any]) -> list[str]:
    if value["low"] is None:
        return [three(value["value"]), "-"]
    return [three(value["value"]), f"{three(value['low'])} to {three(value['high'])}"]


def _methods(report: dict[str, Any]) -> Any:
    rows = []
    for name, entry in report["methods"].items():
        if "error" in entry:
            rows.append([name, "-", "-", "-"])
            continue
        rows.append([name, three(entry["leave_out_mae"]), three(entry["predicted"]), three(entry["predicted_by_joint"])])
    return table(["method", "misses by", "promises", "joint says"], rows)


def _next(report: dict[str, Any]) -> Any:
    sources = report["sources"][:6]
    rows = [
        [str(rank), *(f"{run['weights'][name]:.3f}" for name in sources), f"{run['n']:,}",
         three(run["expected_gain"]), three(run["cost"])]
        for rank, run in enumerate(report["next"], 1)
    ]  # fmt: skip
    return table(["next run", *sources, "n", "gain", "cost"], rows)
