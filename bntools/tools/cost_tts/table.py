"""The report as tables."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def draw(console: Any, report: dict[str, Any]) -> None:
    rows = [_row(choice) for choice in report["frontier"]]
    console.print(terminal.table(["frontier", "limit", "trials", "eTFLOPs", "accuracy (%)", "95 %"], rows))
    rows = []
    for best, bare in zip(report["best"], report["compute_only"]["best"], strict=True):
        share = None if best["share"] is None else 100 * best["share"]
        chosen, alone = name(best["choice"]), name(bare["choice"])
        rows.append([terminal.three(best["budget"]), chosen, terminal.three(share), alone])
    console.print(terminal.table(["budget (eTFLOPs)", "best", "of resamples (%)", "by compute alone"], rows))
    for what, threshold in (
        ("", report["threshold"]),
        (" by compute alone", report["compute_only"]["threshold"]),
    ):
        if threshold is not None:
            console.print(_threshold(threshold) + what)
    for line in report["assumptions"]:
        console.print(f"- {line}")


def name(choice: dict[str, Any] | None) -> str:
    """A choice in a few characters: q17 x 8, or q17@4096 x 8 under a limit."""
    if choice is None:
        return "none fits"
    limit = f"@{choice['limit']}" if choice["limit"] else ""
    return f"{choice['model']}{limit} x {choice['trials']}"


def _row(choice: dict[str, Any]) -> list[str]:
    accuracy = choice["accuracy"]
    return [
        choice["model"] + (" (fit)" if choice["extrapolated"] else ""),
        "-" if choice["limit"] is None else f"{choice['limit']:,}",
        f"{choice['trials']:,}",
        terminal.three(choice["etflops"]),
        terminal.three(100 * accuracy["value"]),
        f"{terminal.three(100 * accuracy['low'])} to {terminal.three(100 * accuracy['high'])}",
    ]


def _threshold(threshold: dict[str, Any]) -> str:
    value, low, high = (terminal.three(threshold[key] / 1e9) for key in ("value", "low", "high"))
    return f"a larger model beats more trials up to {value} G parameters ({low} to {high})"
