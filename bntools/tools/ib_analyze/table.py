"""What a person sees of the planes: a row a layer, and its course as a line of blocks."""

from __future__ import annotations

from typing import Any

from bntools import terminal

_BLOCKS = "▁▂▃▄▅▆▇█"


def draw(console: Any, report: dict[str, Any]) -> None:
    three, rows = terminal.three, []
    for phase in report["phases"]:
        own = [point for point in report["points"] if point["layer"] == phase["layer"]]
        last, label = own[-1]["I_XT"], own[-1].get("I_TY")
        rows.append([
            phase["layer"], _course([point["I_XT"]["value"] for point in own], last["cap"]), three(last["value"]),
            _course([point["I_TY"]["value"] for point in own], label["cap"]) if label else "-",
            three(label["value"]) if label else "-", str(phase["fitted_epoch"]),
            f"{three(phase['low'])} to {three(phase['high'])}" + ("" if phase["significant"] else " ns"),
        ])  # fmt: skip
    headers = ["layer", "I(X;T)", "end", "I(T;Y)", "end", "peak", "compression"]
    console.print(terminal.table(headers, rows))
    baseline = report["baseline"]
    noise = "" if report["estimator"] == "binning" else f", noise {report['sigma']:.3g} {report['noise']}"
    console.print(
        f"{report['units']}, epochs {report['epochs'][0]} to {report['epochs'][-1]}; caps: ln n "
        f"{three(baseline['log_rows'])}, H(Y) {three(baseline['label_entropy'])}; {report['estimator']}{noise}"
    )
    if "gap" in report:
        _draw_gap(console, report["gap"])


def _draw_gap(console: Any, gap: dict[str, Any]) -> None:
    three = terminal.three
    both = any("classwise" in e for e in gap["epochs"])
    headers = ["epoch", f"I(X;T|Y), layer {gap['layer']}", "class by class", "less it", "scaling", "gap"]
    rows = [[str(e["epoch"]), *_gap_cells(e)] for e in gap["epochs"]]
    if not both:
        headers, rows = headers[:2] + headers[4:], [row[:2] + row[4:] for row in rows]
    console.print(terminal.table(headers, rows))
    if gap["rank_correlation"] is not None:
        console.print(f"rank correlation of scaling and gap over epochs: {gap['rank_correlation']:+.2f}")
    if "runs" in gap:
        rows = [[e["run"], str(e["epoch"]), three(e["conditional"]), three(e["scaling"]), three(e["gap"])]
                for e in gap["runs"]]  # fmt: skip
        console.print(terminal.table(["run", "epoch", "I(X;T|Y)", "scaling", "gap"], rows))
        rank = gap["rank_correlation_of_runs"]
        if rank is not None:
            console.print(f"rank correlation over {len(rows)} runs: {rank:+.2f}")


def _gap_cells(entry: dict[str, Any]) -> list[str]:
    three = terminal.three
    direct, excess = "-", "-"
    if "classwise" in entry:
        direct = three(entry["classwise"])
        excess = "{} ({} to {})".format(
            *(three(entry["discrepancy"][key]) for key in ("value", "low", "high"))
        )
    return [three(entry["conditional"]), direct, excess, three(entry["scaling"]), three(entry["gap"])]


def _course(values: list[float], cap: float, width: int = 12) -> str:
    """At most `width` of the values as blocks of eight heights, full at the cap."""
    step = max(1, -(-len(values) // width))
    chosen = [*values[::step][: width - 1], values[-1]] if len(values) > 1 else values
    return "".join(_BLOCKS[min(int(8 * value / cap), 7) if cap else 0] for value in chosen)
