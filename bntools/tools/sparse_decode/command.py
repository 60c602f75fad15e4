"""bntools sparse-decode: parse, decode, edit, write."""

from __future__ import annotations

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools sparse-decode sae.safetensors codes.safetensors -o rows.safetensors
  bntools sparse-decode sae.safetensors codes.safetensors --set 1031=+8 -o steered.safetensors
"""


@click.command("sparse-decode", short_help="Decode sparse codes, edited if asked to.", epilog=EPILOG)
@click.argument("dictionary", metavar="DICTIONARY")
@options.input_argument(example="bntools sparse-decode sae.safetensors codes.safetensors -o rows.safetensors")
@click.option(
    "--set",
    "edits",
    multiple=True,
    metavar="J=[+|*]A",
    help="Set latent J of all rows to A, add A, or multiply by it.",
)
@click.option(
    "--store", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16", show_default=True,
    help="Type of the rows that are written.",
)  # fmt: skip
@options.output
@options.common
def command(
    session: Session,
    dictionary: str,
    source: str,
    edits: tuple[str, ...],
    store: str,
    output: str,
    force: bool,
) -> None:
    """Write the rows that the codes in INPUT stand for in DICTIONARY: an artifact of activations."""
    if dictionary == source == "-":
        raise usage("dictionary and codes both from standard input", "name one of them")
    from bntools.core.artifact.reader import Artifact
    from bntools.core.datasets.activations_writer import ActivationsWriter
    from bntools.core.errors import bad_input
    from bntools.core.methods import sparse_dictionary
    from bntools.core.methods.sparse_codes import Codes, edit
    from bntools.core.model import history
    from bntools.core.model.open import open_input

    session.apply()
    opened = sparse_dictionary.open_dictionary(open_input(dictionary), dictionary)
    changes = [parse(text, len(opened.D)) for text in edits]
    artifact = open_input(source)
    if not isinstance(artifact, Artifact):
        raise bad_input(f"{source} is not an artifact of codes", "bntools sparse-encode makes them")
    codes = Codes(artifact)
    if session.dry_run:
        report = {"kind": "plan", "rows": codes.rows, "width": opened.D.shape[1], "edits": list(edits)}
        shown = [[key, str(value)] for key, value in report.items() if key != "kind"]
        return terminal.emit(session, report, lambda console: console.print(terminal.facts("plan", shown)))
    stage = history.entry(
        "sparse-decode",
        options.argv(),
        session.seed,
        [{"label": dictionary}, {"label": source}],
        session.started,
    )
    known = {key: opened.facts[key] for key in ("model", "sha256", "site", "layer") if key in opened.facts}
    facts = {**known, "decoded": True, "edits": list(edits)}
    with (
        ActivationsWriter(
            output, facts=facts, history=[*artifact.history, stage], dtype=store, force=force
        ) as out,
        terminal.progress(session, "rows", codes.rows) as advance,
    ):
        for piece, columns in codes.batches(len(opened.D)):
            rows = opened.decode_normalised(piece)
            for change in changes:
                edit(rows, opened.D, piece, change)
            columns.pop("x_norm", None)
            out.add(opened.mean + opened.scale * rows, columns)
            advance(len(rows))
    if out.overflowed:
        terminal.note(session, "a number does not fit float16: the rows are bfloat16")
    return terminal.manifest(out.manifest)


def parse(text: str, latents: int) -> tuple[int, str, float]:
    """`J=A`, `J=+A`, `J=-A` (adds, too), `J=*A`. Raises BnError (exit 2)."""
    left, equals, right = text.partition("=")
    how = right[:1] if right[:1] in ("+", "-", "*") else "="
    try:
        number = float(right[1:] if how in ("+", "*") else right)
    except ValueError:
        number, equals = 0.0, ""
    if not equals or not left.strip().isdigit() or abs(number) > 1e6 or number != number:
        raise usage(f"--set {text} is not J=A, J=+A, J=-A or J=*A", "--set 1031=+8")
    if int(left) >= latents:
        raise usage(f"--set {text}: the dictionary has {latents} latents", f"0 to {latents - 1}")
    return int(left), "+" if how == "-" else how, number
