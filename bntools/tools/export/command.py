"""bntools export: open, plan, convert tensor by tensor, write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools export q.safetensors -o dense/
  bntools quantize --bits 4 --symmetric --group-size 32 | bntools export --to compressed-tensors -o ct/
  bntools export q.safetensors --to gguf -o q.gguf
"""
FORMATS = ("hf", "gptq", "gptq_v2", "compressed-tensors", "gguf", "saelens")


@click.command("export", short_help="Write a model in a format other programs load.", epilog=EPILOG)
@options.input_argument(example="bntools quantize --bits 4 | bntools export -o dense/")
@options.output
@click.option(
    "--to",
    "layout",
    type=click.Choice(FORMATS),
    default="hf",
    show_default=True,
    help="hf is dense weights in Hugging Face layout, saelens for sparse dictionaries; the others keep the codes.",
)
@click.option(
    "--requantize",
    is_flag=True,
    help="Round to the nearest grid of the format what it cannot hold as it is, and say what that adds.",
)
@click.option(
    "--model", "file", metavar="FILE.py:NAME", help="The file that builds a subspace's network; it is run."
)
@options.budget
@options.common
def command(
    session: Session, source: str, output: str, force: bool, layout: str, requantize: bool, file: str | None,
    budget: int | None,
) -> None:  # fmt: skip
    """Write INPUT in a format of others, tensor by tensor.

    A directory loads with transformers.AutoModelForCausalLM.from_pretrained; without -o the model is streamed.
    """
    from bntools.core.model.open import as_model, open_input, open_model
    from bntools.tools.export import network

    _check(session, output, force, layout, requantize)
    if source == "-" or os.path.isfile(source):
        opened = open_input(source, budget)
        if layout == "saelens":
            return _saelens(session, opened, source, output, force)
        if getattr(opened, "kind", "") == "embedding":
            return _embedding(session, opened, output, force)
        if network.is_network(opened):
            return _network(session, opened, output, force, file)
        model = as_model(opened, "standard input" if source == "-" else source)
    else:
        model = open_model(source, budget)
    if layout == "saelens":
        raise usage(
            f"{source} is no sparse dictionary", "--to saelens is for what bntools sparse-code writes"
        )
    output = _folder(output, force, layout)
    session.apply()
    _check_whole(model, layout)
    terminal.note_left_behind(session, model)
    if layout == "gguf":
        return _gguf(session, model, output, force, requantize)
    if layout == "hf":
        return _dense(session, model, output, force)
    return _coded(session, model, output, force, layout, requantize)


def _folder(output: str, force: bool, layout: str) -> str:
    """-o NAME of a layout that others load as a folder makes the folder NAME/, unless the name has an ending."""
    from bntools.core.artifact.writer import STDOUT, check_target

    if layout == "gguf" or output == STDOUT or Path(output).suffix or os.path.exists(output):
        return output
    check_target(output + "/", force)
    return output.rstrip("/") + "/"


def _check(session: Session, output: str, force: bool, layout: str, requantize: bool) -> None:
    from bntools.core.artifact.writer import check_target, is_directory

    if layout == "saelens" and not is_directory(output):
        raise usage("--to saelens writes a folder", "-o DIR/")
    if layout == "hf" and requantize:
        raise usage("--requantize has no meaning with --to hf: dense weights hold anything", "drop it")
    if layout == "gguf" and is_directory(output):
        raise usage(
            f"--to gguf writes one file, and {output} is a directory", f"-o {output.rstrip('/')}.gguf"
        )
    if not session.dry_run:
        check_target(output, force)


def _saelens(session: Session, opened: Any, source: str, output: str, force: bool) -> None:
    """A sparse dictionary as SAELens' folder of cfg.json and sae_weights.safetensors."""
    from bntools.core.artifact.writer import Writer
    from bntools.core.methods import saelens, sparse_dictionary

    dictionary = sparse_dictionary.open_dictionary(opened, source)
    arrays, config = saelens.arrays_of(dictionary)
    if session.dry_run:
        return _plan(session, opened.nbytes, {"writes_bytes": sum(array.nbytes for array in arrays.values())})
    if dictionary.inference.candidates:
        terminal.note(
            session, "pursuit is not part of that layout: the encoder's codes are what others will see"
        )
    with Writer(output, "sae", force=force) as out:
        out.weights_file = saelens.WEIGHTS
        out.files = {saelens.CONFIG: saelens.config_text(config)}
        for name, array in arrays.items():
            out.add(name, array)
    return terminal.manifest(out.manifest)


def _embedding(session: Session, opened: Any, output: str, force: bool) -> None:
    """Embedding tables as a folder of a torch module and its weights."""
    from bntools.core.artifact.writer import Writer, is_directory
    from bntools.core.methods.embedding import stored
    from bntools.tools.export import embedding

    if not is_directory(output):
        raise usage("embedding tables are exported to a folder", "-o DIR/")
    texts, tensors = embedding.files(stored.read(opened))
    if session.dry_run:
        total = sum(tensor.nbytes for tensor in tensors.values()) + sum(map(len, texts.values()))
        return _plan(session, opened.nbytes, {"writes_bytes": total})
    with Writer(output, "module", force=force) as out:
        out.weights_file, out.files = embedding.WEIGHTS, texts
        for name, tensor in tensors.items():
            out.add(name, tensor)
    return terminal.manifest(out.manifest)


def _check_whole(model: Any, layout: str) -> None:
    """Raises BnError (exit 3) for a checkpoint that lacks tensors; of an unknown architecture that cannot be told."""
    from bntools.core.architecture import linears
    from bntools.core.errors import BnError
    from bntools.core.model import checkpoint

    try:
        linears.hf_config(model.config)
    except BnError:
        if layout == "hf":
            return
        raise
    checkpoint.check(model)


def _dense(session: Session, model: Any, output: str, force: bool) -> None:
    from bntools.core.artifact.writer import Writer
    from bntools.tools.export.dense import dense_config, dense_files, dense_tensors

    total = sum(entry.nbytes for entry in model.entries.values())
    if session.dry_run:
        return _plan(session, model.store.nbytes(), {"writes_bytes": total})
    source = _fingerprint(model)
    with (
        Writer(output, "model", force=force) as out,
        terminal.progress(session, "exporting", total) as advance,
    ):
        for name, tensor in dense_tensors(model):
            out.add(name, tensor)
            advance(tensor.nbytes)
        out.files, out.config = dense_files(model), dense_config(model)
        out.describe("history", _history(session, model, source))
    terminal.manifest(out.manifest)
    return None


def _coded(session: Session, model: Any, output: str, force: bool, to: str, requantize: bool) -> None:
    from bntools.core.artifact.writer import Writer
    from bntools.tools.export.dense import dense_config, dense_files
    from bntools.tools.export.layouts import LAYOUTS, stored_bytes
    from bntools.tools.export.plan import Losses, code, plan, summary

    layout = LAYOUTS[to]()
    items = plan(model, layout, requantize)
    if to.startswith("gptq") and not any(item.source for item in items):
        hint = f"bntools quantize {model.label} --bits 4 | bntools export --to {to} -o {output}"
        raise usage(f"--to {to} writes quantized weights, and {model.label} has none", hint)
    if session.dry_run:
        return _plan(
            session,
            model.store.nbytes(),
            {"writes_bytes": stored_bytes(model, items)} | summary(items, to, Losses()),
        )
    source, losses = _fingerprint(model), Losses()
    total = sum(model.entries[item.name].nbytes for item in items)
    with (
        Writer(output, "model", force=force) as out,
        terminal.progress(session, "exporting", total) as advance,
    ):
        for item in items:
            tensors = (
                {item.name: model.tensor(item.name)}
                if item.source is None
                else layout.tensors(item.source.module, code(model, item, losses, layout.lowest_zero))
            )
            for name, tensor in tensors.items():
                out.add(name, tensor)
            advance(model.entries[item.name].nbytes)
        settings = layout.settings(model, items)
        out.files = {**dense_files(model), **layout.files(settings)}
        out.config = {**dense_config(model), "quantization_config": settings}
        report = summary(items, to, losses)
        out.describe("report", report)
        out.describe("history", _history(session, model, source))
    terminal.manifest(out.manifest)
    _say(session, report)
    return None


def _gguf(session: Session, model: Any, output: str, force: bool, requantize: bool) -> None:
    from bntools.tools.export import gguf, gguf_metadata
    from bntools.tools.export.plan import Losses, plan, summary

    items, losses = plan(model, gguf.GGUF(), requantize), Losses()
    stored = gguf.contents(model, items, losses)
    size = sum(tensor.nbytes for tensor in stored)
    if session.dry_run:
        return _plan(session, model.store.nbytes(), {"writes_bytes": size} | summary(items, "gguf", losses))
    if not gguf_metadata.writes_tokenizer(model):
        terminal.note(session, "the tokenizer is no byte-level BPE and is left out")
    with terminal.progress(session, "exporting", size) as advance:
        manifest = gguf.publish(model, stored, output, force, advance)
    terminal.manifest(manifest)
    _say(session, summary(items, "gguf", losses))
    return None


def _fingerprint(model: Any) -> Any:
    from bntools.core.model import history

    return history.fingerprint(model)


def _history(session: Session, model: Any, source: Any) -> list[dict[str, Any]]:
    from bntools.core.model import history

    entry = history.entry("export", options.argv(), session.seed, [source.result()], session.started)
    return [*model.history, entry]


def _plan(session: Session, reads: int, plan: dict[str, Any]) -> None:
    report = {**plan, "kind": "plan", "reads_bytes": reads}
    rows = [["reads", terminal.megabytes(report["reads_bytes"])]]
    rows.append(["writes, about", terminal.megabytes(report["writes_bytes"])])
    rows += [[f"tensors {key}", str(value)] for key, value in report.get("tensors", {}).items()]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _say(session: Session, report: dict[str, Any]) -> None:
    """What was rounded anew or not, on standard error: standard output is the model's or the manifest's."""
    counts = report["tensors"]
    parts = [f"{counts['carried']} tensors keep their codes", f"{counts['copied']} are dense"]
    if counts["requantized"]:
        parts.append(f"{counts['requantized']} were rounded anew")
    if counts.get("rounded_offsets"):
        parts.append(f"{counts['rounded_offsets']} have offsets rounded to float16")
    added = f", added error {terminal.three(report['added_error'])}" if "added_error" in report else ""
    terminal.note(session, f"{report['to']}: {', '.join(parts)}{added}")


def _network(session: Session, opened: Any, output: str, force: bool, file: str | None) -> None:
    """A network that is a seed and d numbers, with all its weights."""
    from bntools.core.artifact.writer import Writer
    from bntools.core.model import history
    from bntools.tools.export import network

    session.apply()
    facts, tensors = network.dense(opened, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    if session.dry_run:
        return _plan(session, opened.header.total, {"writes_bytes": total})
    with Writer(output, network.KIND, force=force) as out:
        for name, tensor in tensors.items():
            out.add(name, tensor)
        out.describe("network", facts)
        inputs = [{"label": opened.label, "bytes": opened.header.total, "sha256": opened.sha256()}]
        entry = history.entry("export", options.argv(), session.seed, inputs, session.started)
        out.describe("history", [*opened.history, entry])
    return terminal.manifest(out.manifest)
