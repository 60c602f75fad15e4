"""bntools embed-compress: open the tables, compress, write, show."""

from __future__ import annotations

from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools embed-compress table.safetensors --budget 1/8 --bits 8 -o small.safetensors
  bntools embed-compress model/ --tensor model.embed_tokens.weight --counts counts.npy --budget 1/2 --bits 4 -o e.st
"""


@click.command(
    "embed-compress", short_help="Compress an embedding table without training data.", epilog=EPILOG
)
@options.input_argument(example="bntools embed-compress table.safetensors --budget 1/8 -o small.safetensors")
@click.option("--method", type=click.Choice(["spectral"]), default="spectral", show_default=True, help="How.")
@click.option(
    "--budget", default="1/8", show_default=True, metavar="SHARE", help="Share of the numbers to keep."
)
@click.option("--bits", type=click.Choice(["32", "8", "7", "6", "5", "4", "3", "2"]), default="32", show_default=True,
              help="Bits of a number that is kept.")  # fmt: skip
@click.option(
    "--tensor", metavar="NAME", help="A weight of two dimensions in INPUT, a model or any safetensors."
)
@click.option("--counts", metavar="FILE", help="With --tensor: how often each row is used, one number a row.")
@options.output
@options.common
def command(session: Session, source: str, output: str, force: bool, method: str, budget: str, bits: str,
            tensor: str | None, counts: str | None) -> None:  # fmt: skip
    """Keep of each row of the tables in INPUT as much as errors there cost, within a budget.

    INPUT is what bntools embed-fit writes, or with --tensor a model or safetensors file; - is standard input.
    """
    from bntools.core.artifact.targets import check_target

    if counts is not None and tensor is None:
        raise usage("--counts goes with --tensor: artifacts of embed-fit carry their counts", "--tensor NAME")
    if not session.dry_run:
        check_target(output, force)
    from bntools.core.methods.embedding.shares import parse_budgets

    shares = parse_budgets(budget)
    if len(shares) != 1:
        raise usage("one artifact has one budget", "--budget 1/8")
    session.apply()
    stored, sources, before = _open(source, tensor, counts)
    if tensor is None and not any(name.startswith("counts.") for name in stored.arrays):
        terminal.note(session, "the artifact carries no counts: every value counts alike")
    if session.dry_run:
        return _plan(session, sources, shares[0], int(bits))
    from bntools.tools.embed_compress.run import embed_compress

    small, report = embed_compress(stored, sources, shares[0], int(bits))
    return _finish(session, small, (report, before), (output, force))


def _open(source: str, tensor: str | None, counts: str | None) -> tuple[Any, Any, list[Any]]:
    from bntools.core.methods.embedding import stored as storage
    from bntools.core.model.open import as_model, open_input, open_model
    from bntools.tools.embed_compress import run

    opened = open_input(source)
    history = getattr(opened, "history", [])
    label = "standard input" if source == "-" else source
    if tensor is None:
        if not hasattr(opened, "kind"):
            raise usage(f"{label} is no artifact of embed-fit", "name a weight: --tensor NAME")
        stored = storage.read(opened)
        return stored, run.sources_of(stored), history
    if hasattr(opened, "kind") and tensor in opened.names():
        weight = opened.tensor(tensor)
    else:
        model = as_model(opened, label) if source == "-" else open_model(source)
        if tensor not in model.names():
            matrices = [n for n, e in model.entries.items() if len(e.shape) == 2][:4]
            raise usage(f"{label} has no tensor {tensor}", f"for example: {', '.join(matrices)}")
        weight = model.tensor(tensor)
    return *run.foreign(tensor, weight.float().numpy(), _counts(counts)), history


def _counts(path: str | None) -> Any:
    """The first column of a table."""
    if path is None:
        return None
    from bntools.core.datasets.tables import open_table

    with open_table(path) as table:
        return table.column(table.name(0)).astype(float)


def _plan(session: Session, sources: Any, budget: float, bits: int) -> None:
    numbers = sum(s.E.size for s in sources)
    report = {"kind": "plan", "tables": len(sources), "numbers": numbers, "bytes_before": 4 * numbers,
              "bytes": int(numbers * budget * bits / 8), "memory_bytes": 60 * numbers + 300_000_000}  # fmt: skip
    rows = [[key.replace("_", " "), f"{value:,}"] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _finish(
    session: Session, small: Any, made: tuple[dict[str, Any], list[Any]], place: tuple[str, bool]
) -> None:
    from bntools.core.artifact.writer import Writer
    from bntools.core.methods.embedding import stored as storage
    from bntools.core.model import history

    report, before = made
    with Writer(place[0], storage.KIND, force=place[1]) as out:
        storage.write(out, small)
        entry = history.entry("embed-compress", options.argv(), session.seed, [], session.started)
        out.describe("history", [*before, entry])
        out.describe("report", report)
    if out.manifest is not None:
        terminal.emit(
            session, {**out.manifest, **report, "bntools": 1}, lambda console: _draw(console, report)
        )


def _draw(console: Any, report: dict[str, Any]) -> None:
    three, size = terminal.three, report["stored"]
    rows = [["before", terminal.megabytes(report["bytes_before"]), "1", "0"]]
    total = size["embedding"] + size["index"]
    rows += [[name.replace("_", " "), "as below", "", three(value) if value is not None else "-"]
             for name, value in report["baselines"].items()]  # fmt: skip
    rows.append(["spectral", terminal.megabytes(total), three(report["ratio"]), three(report["error"])])
    console.print(terminal.table(["table", "bytes", "times smaller", "error"], rows))
