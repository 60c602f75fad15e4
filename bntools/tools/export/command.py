"""bntools export: open, make dense, write."""

from __future__ import annotations

import os
from typing import Any

import click

from bntools import options, terminal
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools export q.safetensors -o dense/
  bntools quantize --bits 4 | bntools export -o dense/
"""


@click.command("export", short_help="Write a model as a plain directory any program loads.", epilog=EPILOG)
@options.input_argument(example="bntools quantize --bits 4 | bntools export -o dense/")
@options.output
@click.option(
    "--to",
    "layout",
    type=click.Choice(["hf"]),
    default="hf",
    show_default=True,
    help="Layout: Hugging Face, dense weights.",
)
@click.option(
    "--model", "file", metavar="FILE.py:NAME", help="The file that builds a subspace's network; it is run."
)
@options.common
def command(session: Session, source: str, output: str, force: bool, layout: str, file: str | None) -> None:
    """Write INPUT with dense weights in their original types, tensor by tensor.

    A directory loads with transformers.AutoModelForCausalLM.from_pretrained; without -o the model is streamed.
    """
    from bntools.core import history
    from bntools.core.source import as_model, open_input, open_model
    from bntools.core.writer import Writer, check_target
    from bntools.tools.export import network
    from bntools.tools.export.dense import dense_config, dense_files, dense_tensors

    if not session.dry_run:
        check_target(output, force)
    if source == "-" or os.path.isfile(source):
        opened = open_input(source)
        if network.is_network(opened):
            return _network(session, opened, output, force, file)
        model = as_model(opened, "standard input" if source == "-" else source)
    else:
        model = open_model(source)
    total = sum(entry.nbytes for entry in model.entries.values())
    if session.dry_run:
        return _plan(session, model.store.nbytes(), total)
    session.apply()
    digest = history.fingerprint(model)
    with (
        Writer(output, "model", force=force) as out,
        terminal.progress(session, "exporting", total) as advance,
    ):
        for name, tensor in dense_tensors(model):
            out.add(name, tensor)
            advance(tensor.nbytes)
        out.files, out.config = dense_files(model), dense_config(model)
        entry = history.entry("export", options.argv(), session.seed, [digest.result()], session.started)
        out.describe("history", [*model.history, entry])
    terminal.manifest(out.manifest)
    return None


def _plan(session: Session, reads: int, writes: int) -> None:
    report = {"kind": "plan", "reads_bytes": reads, "writes_bytes": writes}
    rows = [["reads", terminal.megabytes(reads)], ["writes", terminal.megabytes(writes)]]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _network(session: Session, opened: Any, output: str, force: bool, file: str | None) -> None:
    """A network that is a seed and d numbers, with all its weights."""
    from bntools.core import history
    from bntools.core.writer import Writer
    from bntools.tools.export import network

    session.apply()
    facts, tensors = network.dense(opened, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    if session.dry_run:
        return _plan(session, opened.header.total, total)
    with Writer(output, network.KIND, force=force) as out:
        for name, tensor in tensors.items():
            out.add(name, tensor)
        out.describe("network", facts)
        inputs = [{"label": opened.label, "bytes": opened.header.total, "sha256": opened.sha256()}]
        entry = history.entry("export", options.argv(), session.seed, inputs, session.started)
        out.describe("history", [*opened.history, entry])
    return terminal.manifest(out.manifest)
