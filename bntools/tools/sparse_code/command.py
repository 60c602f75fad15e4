"""bntools sparse-code: parse, train or name, write, show."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools sparse-code acts/ --k 32 --expand 8 -o sae.safetensors
  bntools sparse-code acts/ --method batchtopk --k 16,32,64 -o sweep/
  bntools embed smollm2/ --text c.txt --layer 15 | bntools sparse-code --k 32 -o sae.safetensors
  bntools sparse-code sae.safetensors --name vocab.safetensors
"""


class Sizes(click.ParamType):
    """Comma-separated positive whole numbers."""

    name = "K[,K...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of positive whole numbers", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


@click.command("sparse-code", short_help="Train a sparse dictionary, or name its latents.", epilog=EPILOG)
@options.input_argument(example="bntools sparse-code acts/ --k 32 -o sae.safetensors")
@option_blocks.tensor("tensor", "several layers")
@click.option(
    "--method", type=click.Choice(["topk", "batchtopk", "matryoshka", "relu", "jumprelu", "gated"]), default="topk",
    show_default=True, help="How training chooses the latents of a row.",
)  # fmt: skip
@click.option(
    "--k",
    "ks",
    type=Sizes(),
    default="32",
    show_default=True,
    help="Latents a row; several train in one pass.",
)
@click.option(
    "--expand", type=click.IntRange(1), help="Latents over width.  [default: 4; 8 over a million rows]"
)
@click.option("--latents", type=click.IntRange(2), help="Latents in all, in place of --expand.")
@click.option("--tokens", type=click.IntRange(1), help="Rows to train on.  [default: two passes]")
@click.option("--batch", type=click.IntRange(1), default=1024, show_default=True, help="Rows a step.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Adam's rate.  [default: 1e-3 at 2304 latents]"
)
@click.option(
    "--center", type=click.Choice(["mean", "median", "none"]), default="mean", show_default=True,
    help="What is taken off the rows.",
)  # fmt: skip
@click.option(
    "--outliers", type=click.FloatRange(0), default=10.0, show_default=True,
    help="Set rows over so many times the median length aside; 0 keeps them.",
)  # fmt: skip
@click.option(
    "--holdout",
    type=click.IntRange(0),
    help="Last rows to score, not to train on.  [default: a tenth, 16384 at most]",
)
@click.option("--pursuit", type=click.IntRange(0), default=96, show_default=True,
              help="Candidates of pursuit, the artifact's way to encode; 0: its encoder.")  # fmt: skip
@click.option(
    "--aux",
    type=click.FloatRange(0),
    default=1 / 32,
    help="Weight of AuxK, which revives dead latents.  [default: 1/32]",
)
@click.option(
    "--dead-after",
    type=click.IntRange(1),
    help="Rows without use that make a latent dead.  [default: 40 batches]",
)
@click.option("--exact", is_flag=True, help="Take scores in float32 where bfloat16 would be faster.")
@option_blocks.drop_bad
@click.option(
    "--name", "vocabulary", metavar="FILE", help="Name the latents of a dictionary by the rows of FILE."
)
@click.option("--top", type=click.IntRange(1, 20), default=3, show_default=True, help="Names a latent.")
@option_blocks.plot("the training curve")
@options.work
@options.output
@options.common
def command(
    session: Session,
    source: str,
    output: str,
    force: bool,
    plot: str | None,
    vocabulary: str | None,
    **given: Any,
) -> None:
    """Learn a dictionary of latents in which the rows of INPUT are sums of a few.

    INPUT is an artifact of activations: a file, a folder of shards, or - for standard input. With --name it is a
    dictionary, whose latents get the names of the rows of FILE that point their way.
    """
    if vocabulary is not None:
        return _name(session, source, vocabulary, given["top"])
    if plot is not None:
        from bntools.core.report import pictures

        pictures.check(plot)
    from bntools.core.artifact.writer import check_target
    from bntools.core.datasets.activations import open_activations
    from bntools.tools.sparse_code.settings import Settings, validate

    ks = given["ks"]
    if len(ks) > 1 and not output.endswith("/") and not session.dry_run:
        raise usage("several --k write several dictionaries", "-o DIR/")
    if len(ks) == 1 and not session.dry_run:
        check_target(output, force)
    settings = Settings(
        method=given["method"], k=ks[0], latents=given["latents"], expand=given["expand"], tokens=given["tokens"],
        batch=given["batch"], rate=given["rate"], center=given["center"], outliers=given["outliers"],
        holdout=given["holdout"], dead_after=given["dead_after"], aux=given["aux"], candidates=given["pursuit"],
        exact=given["exact"], bad="drop" if given["drop_bad"] else "raise", seed=session.seed,
    )  # fmt: skip
    validate(settings)
    session.apply()
    with open_activations(source, given["tensor"]) as rows:
        every = [replace(settings, k=k) for k in ks]
        if session.dry_run:
            return _plan(session, rows, every)
        return _train(session, rows, every, output, force, (given["work"], plot))


def _train(session: Session, rows: Any, every: list[Any], output: str, force: bool, more: Any) -> None:
    import torch

    from bntools.tools.sparse_code import table
    from bntools.tools.sparse_code.run import fit
    from bntools.tools.sparse_code.write import save

    work, plot = more
    m = every[0].width(rows.width, rows.rows)
    if rows.rows < 10 * m:
        terminal.note(session, f"{rows.rows:,} rows for {m:,} latents: fewer than 10 a latent")
    progress = functools.partial(terminal.progress, session)
    results = fit(
        rows, every, threads=session.threads or torch.get_num_threads(), work=work, progress=progress
    )
    for result in results:
        if result.report.get("l0_off_target"):
            reached = result.report["encoder"]["l0"]["mean"]
            terminal.note(session, f"{reached:.1f} latents a row where --k asks for {result.report['k']}")
    if plot is not None:
        from bntools.tools.sparse_code.plot import draw

        draw([result.report for result in results], plot)
    manifests = save(results, rows, output, force, options.argv(), session.seed, session.started)
    for manifest, result in zip(manifests, results, strict=True):
        terminal.manifest(manifest)
        if manifest is not None and not session.quiet:
            table.draw(terminal.console(stderr=True), result.report)


def _plan(session: Session, rows: Any, every: list[Any]) -> None:
    m, d = every[0].width(rows.width, rows.rows), rows.width
    tokens = every[0].tokens or 2 * rows.rows
    weights = 6 * 2 * m * d * 4 * len(every)
    report = {
        "kind": "plan", "rows": rows.rows, "width": d, "latents": m, "k": [one.k for one in every],
        "train_rows": tokens, "bytes": 8 * m * d * len(every), "memory_bytes": weights + 700_000_000,
        "operations": 2 * tokens * m * d * len(every),
    }  # fmt: skip
    shown = [[key, str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.facts("plan", shown)))


def _name(session: Session, source: str, vocabulary: str, top: int) -> None:
    from bntools.core.datasets.activations import open_activations
    from bntools.core.methods import sparse_dictionary
    from bntools.core.model.open import open_input
    from bntools.tools.sparse_code import name

    dictionary = sparse_dictionary.open_dictionary(open_input(source), source)
    with open_activations(vocabulary) as words:
        report = name.name(dictionary, words, top)
    terminal.emit(session, report, lambda console: name.draw(console, report))
