"""Print the reports of `examples/intrinsic_dimension.sh` as a table, beside the numbers of the paper.

usage: intrinsic_dim.py [TABLE.jsonl]    without a table its row of CartPole is made first, in a minute
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PAPER = {
    ("fc:200,200", None): "750",
    ("lenet", None): "290",
    ("fc:200,200", "pixels"): "750",
    ("lenet", "pixels"): "1,400",
    ("fc:400,400,400,400,400", "labels"): "90,000",
    ("cartpole", None): "25, another method",
    ("pendulum", None): "4, another simulator",
}
"""Li et al. 2018 (arXiv 1804.08838)."""
HEAD = ("network", "seeds", "D", "d_int90 (95 %)", "paper", "CPU seconds")


def main() -> None:
    text = Path(sys.argv[1]).read_text() if sys.argv[1:] else cartpole()
    reports = [json.loads(line) for line in text.splitlines()]
    rows = [row(report) for report in reports if "grid" not in report]
    rows += [row({**cell, "data": report["data"]}) for report in reports for cell in report.get("grid", [])]
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


def cartpole() -> str:
    script = Path(__file__).resolve().parents[2] / "examples" / "intrinsic_dimension.sh"
    with tempfile.TemporaryDirectory() as folder:
        command = ["sh", str(script), folder, folder, "cartpole"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def row(report: dict[str, Any]) -> list[str]:
    """The cells of one network. report: of the tool, or a cell of its grid, which has neither curve nor variant."""
    seeds = str(max(point["runs"] for point in report["curve"])) if "curve" in report else ""
    spent = f"{report['seconds']['runs']:,.0f}"
    return [name(report), seeds, f"{report['D']:,}", interval(report), paper(report), spent]


def name(report: dict[str, Any]) -> str:
    where = report["data"] if report.get("scored") == "return" else report["model"]
    variant = report.get("shuffle")
    share = f" of {100 * report['samples']:g} % of the digits" if report.get("samples", 1) != 1 else ""
    return f"{where}, shuffled {variant}{share}" if variant else where


def interval(report: dict[str, Any]) -> str:
    found = report["d_int90"]
    value, low, high = (f"{found[key]:,.3g}" if found[key] and found[key] < 20 else f"{found[key]:,.0f}" if found[key]
                        else None for key in ("value", "low", "high"))  # fmt: skip
    if value is None:
        return f"more than {low}"
    return f"{value} ({low or '...'} to {high or '...'})"


def paper(report: dict[str, Any]) -> str:
    key = report["data"] if report.get("scored") == "return" else report["model"]
    return PAPER.get((key, report.get("shuffle")), "")


if __name__ == "__main__":
    main()
