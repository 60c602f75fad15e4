"""bntools export: open, make dense, write."""

from __future__ import annotations

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
@options.common
def command(session: Session, source: str, output: str, force: bool, layout: str) -> None:
    """Write INPUT with dense weights in their original types, tensor by tensor.

    A directory loads with transformers.AutoModelForCausalLM.from_pretrained; without -o the model is streamed.
    """
    from bntools.core import history
    from bntools.core.source import open_model
    from bntools.core.writer import Writer, check_target
    from bntools.tools.export.dense import dense_config, dense_files, dense_tensors

    if not session.dry_run:
        check_target(output, force)
    model = open_model(source)
    total = sum(entry.nbytes for entry in model.entries.values())
    if session.dry_run:
        report = {"kind": "plan", "reads_bytes": model.store.nbytes(), "writes_bytes": total}
        rows = [["reads", terminal.megabytes(report["reads_bytes"])], ["writes", terminal.megabytes(total)]]
        terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))
        return
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
