"""bntools info: open the headers, report, list."""

from __future__ import annotations

from typing import Any

import click

from bntools import options, terminal
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
@options.common
def command(session: Session, source: str, tensors: bool, modules: bool) -> None:
    """Show kind, size, bits per weight and history of INPUT; only headers are read.

    INPUT is an artifact, a directory in Hugging Face layout, a .safetensors, .index.json or .gguf file, default: or -.
    """
    from bntools.core.source import open_input
    from bntools.tools.info import describe

    report = describe.describe(open_input(source), source, tensors=tensors, modules=modules)
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
            [h.get("tool", "?"), str(h.get("version")), str(h.get("started")), f"{h.get('seconds', 0):.1f}"]
            for h in report["history"]
        ]
        console.print(terminal.table(["history", "version", "started", "seconds"], rows))
    if "tensors" in report:
        rows = [
            [t["name"], t["dtype"], "x".join(map(str, t["shape"])), f"{t['bytes']:,}"]
            for t in report["tensors"]
        ]
        console.print(terminal.table(["tensor", "type", "shape", "bytes"], rows))
    if "modules" in report:
        console.print(
            terminal.table(
                ["weight", "dim", "bits", "group", "bits/weight", "error oc", "error ic"],
                [_row(m) for m in report["modules"]],
            )
        )


_FACTS = (
    "kind",
    "architecture",
    "bytes",
    "tensor_count",
    "weights",
    "types",
    "bits_per_weight",
    "dims",
    "files",
    "metadata",
)


def _show(key: str, value: Any) -> str:
    if key == "bytes":
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
    errors = module.get("errors", {})
    return [
        module["name"], module["dim"], str(module["bits"]), str(module["group"]), f"{module['bits_per_weight']:.3f}",
        terminal.three(errors.get("oc")), terminal.three(errors.get("ic")),
    ]  # fmt: skip
