"""The report of eval as a person reads it."""

from __future__ import annotations

from typing import Any

from bntools import terminal


def draw(console: Any, report: dict[str, Any]) -> None:
    """Print it on a rich console."""
    three = terminal.three
    rows = []
    if "perplexity" in report:
        if "kl" in report:
            rows.append(["reference perplexity", three(report["reference_perplexity"]), ""])
        rows.append(["perplexity", three(report["perplexity"]), three(report["perplexity_se"])])
    if "kl" in report:
        ratio = report["ppl_ratio"]
        rows.append(
            ["perplexity ratio", three(ratio["value"]), f"{three(ratio['low'])} to {three(ratio['high'])}"]
        )
        rows.append(
            ["KL from the reference (nats/token)", three(report["kl"]["mean"]), three(report["kl"]["se"])]
        )
        rows.append(["KL, 99th percentile", three(report["kl"]["p99"]), ""])
        rows.append(["top-1 agreement (%)", three(100 * report["top1"]), three(100 * report["top1_se"])])
    if "cosine" in report:
        rows.append(
            ["cosine to the reference", f"{report['cosine']['mean']:.5f}", three(report["cosine"]["se"])]
        )
    if "tasks" in report:
        tasks = report["tasks"]
        rows.append(
            ["accuracy (%)", three(100 * tasks["accuracy"]["value"]), three(100 * tasks["accuracy"]["se"])]
        )
        rows.append(["chance (%)", three(100 * tasks["chance"]), ""])
    rows.append(["bits per weight, linear", f"{report['bits_per_weight']['linear']:.3f}", ""])
    rows.append(["bits per weight, whole model", f"{report['bits_per_weight']['model']:.3f}", ""])
    rows.append(["size", terminal.megabytes(report["bytes"]), ""])
    console.print(terminal.table([report["model"], "value", "± se, or 95 %"], rows))
    rest = f"protocol {report['protocol']}, {report['tokens']:,} tokens"
    console.print(rest + (f" in windows of {report['window']}" if "window" in report else ""))
