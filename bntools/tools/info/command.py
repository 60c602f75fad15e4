"""bntools info: open the headers, report, list."""

from __future__ import annotations

import shlex
from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools info q.safetensors
  bntools quantize --bits 3 | bntools info --modules
  bntools info smollm2/ --tensors --json | jq '.tensors[].name'
"""


@click.command("info", short_help="Show what an artifact or model holds.", epilog=EPILOG)
@options.input_argument(example="bntools info default:")
@click.option("--tensors", is_flag=True, help="List every tensor: type, shape, bytes.")
@click.option("--modules", is_flag=True, help="List every quantized weight: dimension, bits, errors.")
@click.option(
    "--budget",
    metavar="SIZE,...",
    help="Of a stack: what is expected of it at these sizes, such as 60MB,90MB.",
)
@click.option(
    "--blocks", is_flag=True, help="Of a stack: list every block in its order: rows, bytes, offset."
)
@click.option(
    "--against",
    metavar="MODEL",
    help="With --blocks: also the relative error of every matrix with its first planes or levels.",
)
@options.common
def command(
    session: Session, source: str, tensors: bool, modules: bool, budget: str | None, blocks: bool,
    against: str | None,
) -> None:  # fmt: skip
    """Show kind, size, bits per weight and history of INPUT; only headers are read.

    INPUT is an artifact, a directory in Hugging Face layout, a .safetensors, .index.json or .gguf file, default: or -.
    """
    from bntools.core.model.open import open_input
    from bntools.tools.info import describe

    if against is not None and not blocks:
        raise usage("--against needs --blocks", "add --blocks")
    opened = open_input(source)
    report = describe.describe(opened, source, tensors=tensors, modules=modules)
    if budget is not None or blocks:
        from bntools.tools.info import stacks

        report |= stacks.describe(opened, source, budget, blocks, against)
    terminal.emit(session, report, lambda console: _draw(console, report))


def _draw(console: Any, report: dict[str, Any]) -> None:
    facts = [
        [key.replace("_", " "), _show(key, report[key])]
        for key in _FACTS
        if report.get(key) not in (None, [], {})
    ]
    console.print(terminal.facts(report["label"], facts))
    if report.get("history"):
        rows = [
            [_command_line(h), h.get("version"), h.get("started"), _seconds(h.get("seconds", 0))]
            for h in report["history"]
        ]
        console.print(terminal.table(["history", "version", "started", "seconds"], rows))
    if "tensors" in report:
        rows = [
            [t["name"], t["dtype"], "x".join(map(str, t["shape"])), f"{t['bytes']:,}"]
            for t in report["tensors"]
        ]
        console.print(terminal.table(["tensor", "type", "shape", "bytes"], rows))
    _draw_stack(console, report)
    if "modules" in report:
        console.print(
            terminal.table(
                ["weight", "dim", "bits", "group", "bits/weight", "error oc", "error ic"],
                [_row(m) for m in report["modules"]],
            )
        )


def _draw_stack(console: Any, report: dict[str, Any]) -> None:
    if "budgets" in report:
        rows = [
            [terminal.megabytes(b["bytes"]), f"{b['bits_per_weight']['linear']:.2f}", terminal.three(b["kl"])]
            for b in report["budgets"]
        ]
        console.print(terminal.table(["budget", "bits/weight, linear", "expected KL (nats/token)"], rows))
    if "blocks" in report:
        rows = [
            [
                b["name"],
                str(b.get("plane", b.get("level"))),
                f"{b['rows'][0]:,} to {b['rows'][1]:,}" if "rows" in b else "all",
                f"{b['bytes']:,}",
                f"{b['offset']:,}",
            ]
            for b in report["blocks"]
        ]
        console.print(terminal.table(["block", "level", "rows", "bytes", "offset"], rows))
    if "errors" in report:
        rows = [[e["name"], *(terminal.three(value) for value in e["errors"])] for e in report["errors"]]
        most = max(len(row) for row in rows)
        heads = ["relative error", "base", *(f"+ {plane}" for plane in range(1, most - 1))]
        console.print(terminal.table(heads[:most], [row + [""] * (most - len(row)) for row in rows]))


_FACTS = (
    "kind",
    "architecture",
    "bytes",
    "tensor_count",
    "base_bytes",
    "weights",
    "types",
    "bits_per_weight",
    "dims",
    "files",
    "facts",
    "metadata",
)


def _command_line(stage: dict[str, Any]) -> str:
    words = stage.get("argv")
    return shlex.join(map(str, words)) if isinstance(words, list) and words else str(stage.get("tool", "?"))


def _seconds(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "-"


def _show(key: str, value: Any) -> str:
    if key in ("bytes", "base_bytes"):
        return terminal.megabytes(value)
    if isinstance(value, dict):
        return ", ".join(
            f"{name} {count:,}" if isinstance(count, int) else f"{name} {count}"
            for name, count in value.items()
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _row(module: dict[str, Any]) -> list[str]:
    errors = module.get("errors", {}) if isinstance(module.get("errors", {}), dict) else {}
    bits = module.get("bits_per_weight")
    errors = {dim: value for dim, value in errors.items() if isinstance(value, int | float)}
    return [
        module["name"], module.get("dim", module.get("code", "-")), str(module.get("bits", "-")),
        str(module.get("group", "-")), f"{bits:.3f}" if isinstance(bits, int | float) else "-",
        terminal.three(errors.get("oc")), terminal.three(errors.get("ic")),
    ]  # fmt: skip
