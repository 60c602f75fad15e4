"""bntools eval: parse, evaluate, show, hold against the gates."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import dispatch, options, terminal
from bntools.core.errors import GATE, BnError, usage
from bntools.options import Session
from bntools.tools.eval import cached

EPILOG = """\b
Examples:
  bntools quantize --bits 3 | bntools eval
  bntools eval q.safetensors --against smollm2/ --text book.txt --tokens 16000
  bntools eval q/ --max-kl 0.2 --json | jq .kl.mean
  bntools eval smollm2.stack.safetensors --curve 8 --plot curve.svg
"""


@click.command("eval", short_help="Measure how good a model still is.", epilog=EPILOG)
@options.input_argument(example="bntools quantize --bits 3 | bntools eval")
@click.option(
    "--protocol",
    type=click.Choice(["gptq", "lmeval", "llamacpp"]),
    default="gptq",
    show_default=True,
    help="Which tokens are scored, and what each is given.",
)
@click.option(
    "--against",
    default="auto",
    show_default=True,
    metavar="MODEL|none",
    help="Reference for the divergence; auto: what INPUT was made from.",
)
@click.option("--text", metavar="FILE", help="Text to score: .txt or .jsonl.  [default: the embedded one]")
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=8192,
    show_default=True,
    help="Score at most so many tokens (lmeval: no further document).",
)
@click.option(
    "--window", type=click.IntRange(8), help="Tokens a window.  [default: 512 for llamacpp, else 2048]"
)
@click.option(
    "--tasks",
    type=click.Path(),
    metavar="FILE|DIR",
    help="Multiple-choice questions: .jsonl, or a folder in MMLU's layout.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="PATH",
    help="What a network, dictionary, index or other artifact that is no language model is scored on.",
)
@click.option(
    "--model",
    "file",
    metavar="MODEL|FILE.py:NAME",
    help="With --data: the model an artifact belongs to, or the file to run to build its network.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the scores of an artifact that is no language model; its tool's man page names them.",
)
@click.option("--max-ppl", type=float, help="Exit 4 if the perplexity is higher.")
@click.option("--max-kl", type=float, help="Exit 4 if the mean divergence is higher.")
@options.budget
@click.option(
    "--curve",
    type=click.IntRange(2, 64),
    metavar="N",
    help="Of a stack: measure at N sizes, from its base to all of it.",
)
@click.option(
    "--plot", metavar="FILE", help="With --curve: draw the divergence against the size: .svg, .png or .pdf."
)
@options.dtype
@options.part_output
@options.part_force
@options.run_folder
@options.shard
@options.jobs
@options.common
@cached.option
@dispatch.divided(
    dispatch.Division(
        ("source", "against", "text"), ("max_ppl", "max_kl", "tasks"), "bntools.tools.eval.evaluate"
    )
)
def command(session: Session, source: str, against: str, text: str | None, tasks: str | None, data: tuple[str, ...],
            file: str | None, assignments: tuple[str, ...], max_ppl: float | None, max_kl: float | None,
            budget: int | None, curve: int | None, plot: str | None, dtype: str, **given: Any) -> None:  # fmt: skip
    """Perplexity of INPUT and, where its original can be found, the divergence from it, in nats a token.

    INPUT is what bntools quantize takes, most often an artifact on standard input.
    """
    from bntools.core.model.open import as_model, open_input
    from bntools.core.text.documents import default_text, read_documents
    from bntools.tools.eval import table
    from bntools.tools.eval.choice import read_tasks
    from bntools.tools.eval.evaluate import Settings, evaluate
    from bntools.tools.eval.kinds import module_of

    place = given.pop("output"), given.pop("force")
    shard, apart = given.pop("shard"), ("curve" if curve else "data" if data else "")
    opened = open_input(source, budget)
    scored_by = module_of(getattr(opened, "kind", ""))
    if shard or given["gather"]:
        _check_parts(shard, scored_by, apart, tasks)
    if scored_by is not None:
        places = {"data": data, "model": file, "text": text, "plot": plot, "tokens": given["tokens"]}
        return _kind(session, scored_by, opened, places, assignments)
    if assignments:
        raise usage(f"--set is for artifacts that are no language models, and {source} is none", "drop --set")
    if data:
        return _classify(session, opened, source, data[0], file)
    _check_curve(curve, plot, budget, tasks)
    model = as_model(opened, "standard input" if source == "-" else source)
    documents = [default_text("eval")] if text is None else read_documents(text)
    if tasks is not None:
        read_tasks(tasks)  # a damaged file is found before the long work
    reference = _reference(session, model, against)
    session.apply()
    settings = Settings(**given, dtype=options.torch_dtype(dtype), device=session.torch_device())
    if shard:
        return _part(session, model, reference, documents, settings, (shard, place))
    if session.dry_run:
        return _plan(session, model, reference, documents, settings)
    if curve is not None:
        return _curve(session, model, reference, documents, settings, curve, plot)
    report = evaluate(
        model, reference, documents, tasks, settings, functools.partial(terminal.progress, session)
    )
    terminal.emit(session, report, lambda console: table.draw(console, report))
    return _gates(report, max_ppl, max_kl)


def _check_parts(shard: Any, scored_by: Any, apart: str, tasks: str | None) -> None:
    """Only windows of a text are scored in parts."""
    if scored_by is not None:
        raise usage("only language models are scored in parts", "drop --shard, --gather or --on")
    if apart:
        raise usage(f"--{apart} is not divided into parts", "drop --shard, --gather or --on")
    if shard and tasks is not None:
        raise usage(
            "--tasks is answered when the parts are joined", "drop --tasks here, give it with --gather"
        )


def _part(
    session: Session, model: Any, reference: Any, documents: list[str], settings: Any, which: tuple[Any, Any]
) -> None:
    """Score and write the windows of one part."""
    from bntools.core.text.tokens import open_tokenizer
    from bntools.tools.eval.evaluate import make_corpus, write_part
    from bntools.tools.eval.parts import Scored

    corpus = make_corpus(model, documents, open_tokenizer(model.files, model.config, model.label), settings)
    scored = Scored(model, reference, corpus, settings.dtype)
    progress = functools.partial(terminal.progress, session)
    terminal.manifest(write_part(scored, settings, which[0], place=which[1], progress=progress))


def _check_curve(curve: int | None, plot: str | None, budget: int | None, tasks: str | None) -> None:
    from bntools.core.report import pictures

    if curve is None and plot is not None:
        raise usage("--plot draws a curve", "--curve 8 --plot curve.svg")
    if curve is not None and (budget is not None or tasks is not None):
        raise usage("--curve measures text at sizes of its own", "drop --budget and --tasks")
    if plot is not None:
        pictures.check(plot)


def _curve(
    session: Session,
    model: Any,
    reference: Any,
    documents: list[str],
    settings: Any,
    points: int,
    plot: str | None,
) -> None:
    from bntools.tools.eval import curve

    report = curve.measure(
        model, reference, documents, settings, points, functools.partial(terminal.progress, session)
    )
    if plot is not None:
        curve.draw(report, plot)
    rows = [
        [terminal.megabytes(p["bytes"]), f"{p['bits_per_weight']['linear']:.2f}", terminal.three(p["kl"]["mean"]),
         terminal.three(p["kl"]["se"]), terminal.three(p["perplexity"])]
        if "kl" in p else
        [terminal.megabytes(p["bytes"]), f"{p['bits_per_weight']['linear']:.2f}", "-", "-",
         terminal.three(p["perplexity"])]
        for p in report["points"]
    ]  # fmt: skip
    heads = [report["model"], "bits/weight, linear", "KL (nats/token)", "± se", "perplexity"]
    terminal.emit(session, report, lambda console: console.print(terminal.table(heads, rows)))


def _kind(
    session: Session, scored_by: Any, opened: Any, places: dict[str, Any], assignments: tuple[str, ...]
) -> None:
    """Score an artifact of a kind of its own, and show what its module makes of it."""
    from bntools.tools.eval.kinds import Request

    if places["plot"] is not None:
        from bntools.core.report import pictures

        pictures.check(places["plot"])
    session.apply()
    request = Request(
        **places, seed=session.seed, threads=session.threads, device=session.torch_device(),
        options=dict(map(_assignment, assignments)),
    )  # fmt: skip
    report = scored_by.score(opened, request, functools.partial(terminal.progress, session))
    terminal.emit(session, report, lambda console: [console.print(t) for t in scored_by.tables(report)])


def _assignment(text: str) -> tuple[str, Any]:
    """NAME=VALUE; the value as JSON where it is JSON, else as it stands."""
    import json

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise usage(f"--set {text} is not NAME=VALUE", "--set k=32")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _classify(session: Session, opened: Any, source: str, data: str, file: str | None) -> None:
    from bntools.tools.eval.classify import classify

    session.apply()
    report = classify(opened, source, data, file, seed=session.seed)
    rows = [["accuracy (%)", terminal.three(100 * report["accuracy"]["value"]),
             terminal.three(100 * report["accuracy"]["se"])],
            ["largest class (%)", terminal.three(100 * report["largest_class"]), ""],
            ["parameters", f"{report['parameters']:,}", ""],
            ["size", terminal.megabytes(report["bytes"]), ""]]  # fmt: skip
    terminal.emit(
        session,
        report,
        lambda console: console.print(terminal.table([report["model"], "value", "± se"], rows)),
    )


def _reference(session: Session, model: Any, against: str) -> Any:
    from bntools.core.model.open import open_model
    from bntools.tools.eval.evaluate import find_reference

    if against == "none":
        return None
    if against != "auto":
        return open_model(against)
    reference = find_reference(model)
    if reference is None and model.history:
        terminal.note(session, "the original is not here: no divergence (name it with --against MODEL)")
    return reference


def _plan(session: Session, model: Any, reference: Any, documents: list[str], settings: Any) -> None:
    from bntools.core.text.tokens import open_tokenizer
    from bntools.tools.eval.evaluate import make_corpus

    corpus = make_corpus(model, documents, open_tokenizer(model.files, model.config, model.label), settings)
    weights = sum(entry.numel for entry in model.entries.values())
    report = {
        "kind": "plan", "tokens": corpus.tokens, "windows": len(corpus.windows), "window": corpus.window,
        "reference": reference.label if reference else None, "memory_bytes": 4 * weights + 600_000_000,
    }  # fmt: skip
    rows = [[key.replace("_", " "), str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _gates(report: dict[str, Any], max_ppl: float | None, max_kl: float | None) -> None:
    perplexity = report.get("perplexity", float("nan"))
    if max_ppl is not None and not perplexity <= max_ppl:
        raise BnError(f"perplexity {perplexity:.4g} is over --max-ppl {max_ppl:g}", "", GATE)
    measured = report.get("kl", {}).get("mean")
    if max_kl is None or (measured is not None and measured <= max_kl):
        return
    if measured is None:
        raise BnError(f"no divergence was measured for --max-kl {max_kl:g}", "--against MODEL", GATE)
    raise BnError(f"divergence {measured:.4g} is over --max-kl {max_kl:g}", "", GATE)
