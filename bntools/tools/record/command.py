"""bntools record: data, network, epochs, activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

if TYPE_CHECKING:
    from bntools.tools.record.files import Work

EPILOG = """\b
Examples:
  bntools record fc:784,256,20,20,20,10 --data mnist/ --train 100 -o dumps/
  bntools record fc:64,32 --data digits.npz --activation relu -o - | bntools ib-analyze -
"""


@click.command("record", short_help="Keep every layer's activations while a network trains.", epilog=EPILOG)
@click.argument("network")
@click.option(
    "--data", "data_path", metavar="PATH", help="Labelled data: an IDX folder, .npz or .safetensors."
)
@click.option("--train", type=click.IntRange(0), default=100, show_default=True, help="Epochs of training.")
@click.option("--epochs", default="log:40", show_default=True, metavar="WHICH",
              help="When to keep activations: log:N, every:N or a list.")  # fmt: skip
@click.option("--activation", type=click.Choice(["tanh", "relu"]), default="tanh", show_default=True,
              help="Nonlinearity of the hidden layers.")  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(50), default=2000, show_default=True, help="Rows to keep activations of."
)
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True,
              help="Which rows these are.")  # fmt: skip
@click.option("--limit", type=click.IntRange(50), help="Train on the first so many rows.  [default: all]")
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), default=0.01, show_default=True, help="Learning rate."
)
@click.option("--momentum", type=click.FloatRange(0, 1), default=0.9, show_default=True, help="Momentum.")
@click.option("--batch", type=click.IntRange(1), default=128, show_default=True, help="Rows a step.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32", show_default=True,
              help="Type the activations are stored in.")  # fmt: skip
@options.output
@options.common
def command(
    session: Session,
    network: str,
    data_path: str | None,
    output: str,
    force: bool,
    dtype: str,
    **choices: Any,
) -> None:
    """Train NETWORK, fc: and the widths of its layers, and write the activations of each layer at chosen epochs.

    DIR/ gets one file an epoch and one with inputs and labels; a file or - gets all of them.
    """
    if data_path is None:
        raise usage("no data to train on", "--data mnist/, of: bntools fetch mnist -o mnist/")
    from bntools.core.datasets import labelled
    from bntools.core.model import history
    from bntools.tools.record.files import Work
    from bntools.tools.record.run import Recording, chosen_epochs, hidden_widths

    session.apply()
    settings = Recording(network=network, seed=session.seed, **choices)
    data = labelled.read(data_path, session.seed)
    epochs, hidden = chosen_epochs(settings.epochs, settings.train), hidden_widths(network, data)
    if session.dry_run:
        report = {"kind": "plan", "network": hidden, "rows": settings.rows, "epochs": epochs}
        rows = [[key, str(value)] for key, value in report.items() if key != "kind"]
        return terminal.emit(
            session, report, lambda console: console.print(terminal.table(["plan", "value"], rows))
        )
    inputs = [{"label": data.label, "sha256": data.sha256}]
    stages = [history.entry("record", options.argv(), session.seed, inputs, session.started)]
    return _write(session, Work(data, settings, stages), output, dtype=dtype, force=force)


def _write(session: Session, work: Work, output: str, *, dtype: str, force: bool) -> None:
    from bntools.core.artifact.writer import is_directory
    from bntools.tools.record.files import write_file, write_folder
    from bntools.tools.record.run import record

    with terminal.progress(session, "epochs", work.settings.train) as advance:
        write = write_folder if is_directory(output) else write_file
        snapshots = record(work.data, work.settings, advance=advance)
        manifest = write(output, work, snapshots, dtype=dtype, force=force)
    terminal.manifest(manifest)
