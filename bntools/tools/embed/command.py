"""bntools embed: parse, open the model, write what it makes of the inputs."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools embed smollm2/ --text corpus.txt --layer 15 -o acts/
  bntools embed minilm/ --text glosses.jsonl --field gloss -o emb.safetensors
  bntools embed wordllama: --text words.txt -o vocab.safetensors
  bntools embed lenet.safetensors --images mnist/ --split test -o digits.safetensors
"""


@click.command("embed", short_help="Keep what a model makes of texts or images.", epilog=EPILOG)
@options.input_argument(example="bntools embed smollm2/ --text corpus.txt --layer 15 -o acts/")
@click.option("--text", "text", metavar="FILE|-", help="Texts: .txt, or .jsonl with --field; - for a stream.")
@click.option("--images", metavar="PATH", help="A folder of images or of IDX files, .npz or .safetensors.")
@click.option("--field", default="text", show_default=True, help="Of .jsonl, the field that holds the text.")
@click.option(
    "--layer", "layers", metavar="L[,L...]", help="Behind which blocks.  [default: the model's output]"
)
@click.option(
    "--site", type=click.Choice(["resid", "attn", "mlp"]), default="resid", show_default=True,
    help="The residual stream, or what attention or MLP of the block add to it.",
)  # fmt: skip
@click.option(
    "--per", type=click.Choice(["token", "document"]), default="token", show_default=True,
    help="Of a causal model a row a token, or one pooled row a document.",
)  # fmt: skip
@click.option(
    "--pool", type=click.Choice(["mean", "cls", "last"]), default="mean", show_default=True,
    help="How a text becomes one row: mean of its tokens, the first, the last.",
)  # fmt: skip
@click.option("--normalize", is_flag=True, help="Rows of length 1.")
@click.option("--window", type=click.IntRange(2), default=256, show_default=True, help="Tokens a window.")
@click.option("--tokens", type=click.IntRange(2), help="Tokens (of a static table: texts) at most.")
@click.option(
    "--split", type=click.Choice(["train", "test"]), default="train", show_default=True,
    help="Of labelled data with both.",
)  # fmt: skip
@click.option(
    "--store", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16", show_default=True,
    help="Type of the rows that are written.",
)  # fmt: skip
@options.dtype
@options.part
@options.output
@options.common
def command(
    session: Session,
    source: str,
    text: str | None,
    images: str | None,
    output: str,
    force: bool,
    **given: Any,
) -> None:
    """Run the model INPUT over texts or images and write an artifact of activations.

    A causal language model gives a row a token, an encoder a row a text, a static table (wordllama:) the mean of a
    text's token rows, a vision model or small network a row an image.
    """
    if (text is None) == (images is None):
        raise usage("one of --text and --images", "bntools embed --help")
    from bntools.core.artifact.writer import check_target, is_directory
    from bntools.tools.embed.settings import Settings, parse_layers

    if not is_directory(output):
        check_target(output, force or session.dry_run)
    settings = Settings(
        layers=parse_layers(given["layers"]), site=given["site"], per=given["per"], pool=given["pool"],
        normalize=given["normalize"], window=given["window"], limit=given["tokens"], dtype=given["store"],
        compute=given["dtype"], field=given["field"],
    )  # fmt: skip
    session.apply()
    plan, inputs, history = _plan(session, source, text or images or "", settings, images, given)
    if session.dry_run:
        return _show_plan(session, plan, settings)
    return _write(session, plan, settings, output, force, (inputs, history))


def _plan(
    session: Session, source: str, inputs: str, settings: Any, images: str | None, given: dict[str, Any]
) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows to come, and the inputs and history they are signed with."""
    from bntools.core.artifact.reader import Artifact
    from bntools.core.datasets.static_table import is_static, open_static
    from bntools.core.model import open as models
    from bntools.core.model.subspace import NETWORK
    from bntools.tools.embed import run

    shard = given["shard"]
    if images is not None:
        opened = None if source == "pixels:" else models.open_input(source)
        if not (isinstance(opened, Artifact) and opened.kind in ("subspace", NETWORK)) and opened is not None:
            opened = models.as_model(opened, source)
        plan = run.plan_images(opened, source, images, settings, given["split"])
        return plan, [{"label": source}, {"label": images}], list(getattr(opened, "history", []))
    signed = {"label": inputs, "sha256": run.digest(inputs)}
    if is_static(source):
        plan = run.plan_static(open_static(source), inputs, settings, shard)
        return plan, [{"label": source, "sha256": plan.facts["sha256"]}, signed], []
    if source == "-" and inputs == "-":
        raise usage("model and text both from standard input", "name one of them")
    model = models.open_model(source)
    plan = run.plan_texts(model, inputs, settings, shard, session.torch_device())
    return plan, [{"label": plan.facts["model"], "sha256": plan.facts["sha256"]}, signed], list(model.history)


def _write(session: Session, plan: Any, settings: Any, output: str, force: bool, signed: Any) -> None:
    from bntools.core.model import history
    from bntools.tools.embed import run

    inputs, before = signed
    stage = history.entry("embed", options.argv(), session.seed, inputs, session.started)
    progress = functools.partial(terminal.progress, session)
    writer, bad = run.write(plan, output, settings, history=[*before, stage], force=force, progress=progress)
    if writer.overflowed:
        terminal.note(session, "a number does not fit float16: the rows are bfloat16")
    if bad:
        terminal.note(session, f"{bad:,} rows hold NaN or infinity")
    terminal.detail(session, f"{writer.rows:,} rows")
    terminal.manifest(writer.manifest)


def _show_plan(session: Session, plan: Any, settings: Any) -> None:
    size = {"float32": 4}.get(settings.dtype, 2)
    layers = max(len(settings.layers), 1)
    report = {
        "kind": "plan", "rows": plan.rows, "width": plan.width, "layers": list(settings.layers),
        "bytes": plan.rows * plan.width * size * layers, "model": plan.facts.get("model"),
    }  # fmt: skip
    rows = [[key, str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.facts("plan", rows)))
