"""The report and the plan on a terminal."""

from __future__ import annotations

from typing import Any

from bntools import terminal

three = terminal.three


def draw(console: Any, report: dict[str, Any]) -> None:
    """Stages, transitions, and what the same seed costs otherwise."""
    console.print(
        terminal.table(
            ["stage", "noise level", "tokens", "steps", "share of cost", "wall s"], _stages(report)
        )
    )
    for each in report["transitions"]:
        console.print(_transition(each))
    if "compare" in report:
        rows = [
            [row["name"], " + ".join(map(str, row["steps"])), three(row["cost"]), three(row["wall"]),
             three(row["speedup"]), three(row["distance"])]
            for row in report["compare"]
        ]  # fmt: skip
        console.print(terminal.table(["", "steps", "cost", "wall s", "times faster", "from full"], rows))
    if "exact" in report:
        exact = report["exact"]
        console.print(
            f"variances in the band off by {three(exact['band'])}, above it by {three(exact['high'])} at most; "
            f"KL {three(exact['kl'])} a dimension"
        )
    totals = report["totals"]
    console.print(
        f"{report['count']:,} samples by {report['method']}: {totals['nfe']} passes that cost {three(totals['cost'])} "
        f"of full resolution, which takes {report['baseline']['steps']}"
    )


def _stages(report: dict[str, Any]) -> list[list[str]]:
    total = report["totals"]["flops"]
    return [
        [
            f"{_size(stage['size'])}", f"{stage['t_start']:.3g} to {stage['t_end']:.3g}", f"{stage['tokens']:,}",
            str(len(stage["sigmas"]) - 1), f"{100 * stage['flops'] / total:.0f} %", three(stage["wall"]),
        ]
        for stage in report["stages"]
    ]  # fmt: skip


def _transition(each: dict[str, Any]) -> str:
    level = f"{each['t_before']:.3g} to {each['t_after']:.3g}"
    if each["healthy"] is None:
        return f"{each['kind']}: noise level {level}"
    state = "as it should be" if each["healthy"] else "NOT as it should be"
    return (
        f"{each['kind']}: noise level {level}, mean square {three(each['moment_after'])} of "
        f"{three(each['moment_expected'])}: {state}"
    )


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"


def draw_plan(console: Any, report: dict[str, Any]) -> None:
    """Full resolution first, a row a stage, the total."""
    full, total = report["full"], report["total"]

    def row(name: str, each: dict[str, Any]) -> list[str]:
        share = f"{100 * each['attention_share']:.0f} %"
        cost, moved = _si(each["flops"]), _si(each["io_bytes"])
        return [
            name,
            f"{each['tokens']:,}",
            str(each["nfe"]),
            cost,
            share,
            moved,
            three(1000 * each["seconds"]),
        ]

    rows = [row(f"full, {_size(full['size'])}", full)]
    rows += [row(f"{index}: {_size(each['size'])}", each) for index, each in enumerate(report["stages"], 1)]
    rows.append(
        ["all stages", "", str(total["nfe"]), _si(total["flops"]), "", "", three(1000 * total["seconds"])]
    )
    headers = ["stage", "tokens", "passes", "FLOP", "attention", "bytes", f"ms, {report['device']}"]
    console.print(terminal.table(headers, rows))
    levels = ", ".join(f"{t:.2f}" for t in report["bounds"][1:-1]) or "none"
    by_time, by_flop = (three(report["speedup"][key]) for key in ("seconds", "flops"))
    console.print(f"{by_time} times faster than full resolution ({by_flop} by FLOP)")
    console.print(f"transitions at noise levels {levels}")


def _si(value: float) -> str:
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:#.3g} {letter}"
    return f"{value:.0f}"
