"""Estimates and fits as tables."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def draw(console: Any, report: dict[str, Any]) -> None:
    three = terminal.three
    rows = []
    for name, value in report["total"].items():
        used = report.get("part", {}).get("used", {}).get(name)
        interval = f"{three(value['low'])} to {three(value['high'])}" if report["calibrated"] else "-"
        rows.append([name.upper() if name in ("dsp", "lut", "ff", "bram") else name, three(value["value"]), interval,
                     three(report["first_order"][name]), "-" if used is None else three(100 * used)])  # fmt: skip
    what = "estimate" if report["calibrated"] else "at least"
    part = report.get("part", {}).get("name", "part")
    console.print(terminal.table(["", what, "90 %", "by counting", f"% of {part}"], rows))
    rows = [[f"{i + 1} {layer['type']}", f"{layer['inputs']} x {layer['outputs']}", str(layer["reuse"]),
             f"{layer['multipliers']:,}", three(layer["dsp"]), three(layer["bram"]), three(layer["interval"])]
            for i, layer in enumerate(report["layers"])]  # fmt: skip
    console.print(terminal.table(["layer", "size", "reuse", "multipliers", "DSP", "BRAM", "interval"], rows))
    console.print(
        f"{three(report['latency_us'])} us a result, {three(report['inferences_per_s'])} results/s at most"
    )
    if not report["calibrated"]:
        console.print("counted, not calibrated: --fit a table of syntheses, then --corrector")


def draw_fit(console: Any, report: dict[str, Any]) -> None:
    three = terminal.three
    rows = [
        [name, three(t["smape"]), three(t["first_order_smape"]), three(t["median_smape"]),
         "-" if t["r2"] is None else three(t["r2"]), three(100 * t["within"]["10%"]),
         three(100 * t["interval90_holds"])]
        for name, t in report["targets"].items()
    ]  # fmt: skip
    headers = ["target", "SMAPE (%)", "counting", "median", "R2", "within 10 % (%)", "in 90 % (%)"]
    console.print(terminal.table(headers, rows))
    held = ", ".join(f"{name} {three(error)}" for name, error in report["held_out_smape"].items())
    console.print(
        f"{report['model']} of {report['rows']} rows, {report['architectures']} architectures; held out: {held}"
    )
