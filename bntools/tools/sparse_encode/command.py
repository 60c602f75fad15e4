"""bntools sparse-encode: parse, open, encode, write."""

from __future__ import annotations

from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools sparse-encode sae.safetensors acts/ --pursuit 96 -o codes.safetensors
  bntools sparse-encode sae.safetensors acts/ --budget fvu=.2 -o codes.safetensors
  bntools embed smollm2/ --text c.txt --layer 15 | bntools sparse-encode sae.safetensors - -o codes.safetensors
"""


@click.command("sparse-encode", short_help="Encode activations by a sparse dictionary.", epilog=EPILOG)
@click.argument("dictionary", metavar="DICTIONARY")
@options.input_argument(example="bntools sparse-encode sae.safetensors acts/ -o codes.safetensors")
@option_blocks.tensor("tensor", "several layers")
@click.option(
    "--pursuit",
    type=click.IntRange(0),
    help="Candidates of pursuit; 0: the encoder.  [default: as the dictionary says]",
)
@click.option(
    "--k", "k", type=click.IntRange(1), help="Latents a row at most, of pursuit.  [default: the dictionary's]"
)
@click.option("--budget", metavar="fvu=F", help="Stop a row's pursuit when this share of it is left.")
@click.option("--signed", is_flag=True, help="Keep negative coefficients of pursuit.")
@option_blocks.drop_bad
@click.option(
    "--store", type=click.Choice(["float16", "float32"]), default="float16", show_default=True,
    help="Type of the values that are written.",
)  # fmt: skip
@options.part
@options.output
@options.common
def command(session: Session, dictionary: str, source: str, output: str, force: bool, **given: Any) -> None:
    """Write the codes of the rows of INPUT in DICTIONARY, by the way to encode that it names or by another one.

    Both may not come from standard input. With --force, also rows of another model, layer or site.
    """
    if dictionary == source == "-":
        raise usage("dictionary and rows both from standard input", "name one of them")
    from bntools.core.artifact.writer import Writer, check_target
    from bntools.core.datasets.activations import open_activations
    from bntools.core.methods import sparse_codes, sparse_dictionary
    from bntools.core.model import history
    from bntools.core.model.open import open_input
    from bntools.tools.sparse_encode.encode import Request, pieces, resolve

    check_target(output, force or session.dry_run)
    session.apply()
    opened = sparse_dictionary.open_dictionary(open_input(dictionary), dictionary)
    how = resolve(opened, given["pursuit"], given["k"], given["budget"], given["signed"])
    with open_activations(source, given["tensor"]) as rows:
        sparse_dictionary.check_fits(opened, rows.facts, rows.width, rows.label, force)
        shard, bad = given["shard"], "drop" if given["drop_bad"] else "raise"
        if session.dry_run:
            return _plan(session, rows, how)
        import torch

        threads = session.threads or torch.get_num_threads()
        request = Request(how, shard, bad, threads)
        stage = history.entry(
            "sparse-encode",
            options.argv(),
            session.seed,
            [{"label": dictionary}, {"label": rows.label}],
            session.started,
        )
        with Writer(output, sparse_codes.KIND, force=force) as out:
            out.describe("history", [*rows.history, stage])
            with terminal.progress(session, "rows", rows.rows) as advance:
                description = sparse_codes.write(
                    out, pieces(opened, rows, request, advance), {"inference": how.facts(), "dictionary": opened.facts},
                    opened.codes_width(how), given["store"],
                )  # fmt: skip
        terminal.detail(session, f"{description['rows']:,} rows, {description['l0']:.2f} latents a row")
        return terminal.manifest(out.manifest)


def _plan(session: Session, rows: Any, how: Any) -> None:
    report = {"kind": "plan", "rows": rows.rows, "width": rows.width, "k": how.k, "bytes": 6 * rows.rows * how.k,
              "inference": how.name}  # fmt: skip
    shown = [[key, str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.facts("plan", shown)))
