"""bntools cbm-build: read, build, write, show."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import options, terminal
from bntools.options import Session
from bntools.tools.cbm_build import parse
from bntools.tools.cbm_build.settings import METHODS

EPILOG = """\b
Examples:
  bntools cbm-build train.safetensors --concepts concepts.safetensors --nec 5 -o cbm.safetensors
  bntools cbm-build train.safetensors --bank cav --truth truth.safetensors | bntools info
  bntools cbm-build wordnet/ --encoder wordllama/ --demo -o demo.cbm.safetensors
"""
_FILES = ("class_embeddings", "class_names", "codes", "vocabulary", "teacher")


@click.command("cbm-build", short_help="Build a concept bottleneck from embeddings.", epilog=EPILOG)
@options.input_argument(example="bntools cbm-build train.safetensors --concepts concepts.safetensors")
@options.output
@click.option(
    "--concepts", metavar="FILE", help="Embeddings of the concepts' names, by the encoder of INPUT."
)
@click.option(
    "--truth", metavar="FILE", help="Which rows have which concept: concept [N, K] and concepts.txt."
)
@click.option(
    "--class-embeddings", metavar="FILE", help="Embeddings of the classes' names: zero-shot baseline, cms."
)
@click.option(
    "--class-names",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="One name a class, a line each.",
)
@click.option("--codes", metavar="FILE", help="dn: the sparse dictionary whose latents are the concepts.")
@click.option("--vocabulary", metavar="FILE", help="dn: embeddings of words to name latents by.")
@click.option(
    "--name-cosine",
    type=click.FloatRange(-1, 1),
    default=0.5,
    show_default=True,
    help="dn: a latent whose nearest word is farther stays unnamed.",
)
@click.option(
    "--teacher", metavar="FILE", help="lf: the rows of INPUT by the encoder of --concepts, in the same order."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="labo",
    show_default=True,
    help="Which bottleneck to build.",
)
@click.option("--paper", is_flag=True, help="labo, motif: the published form, where ours differs.")
@click.option(
    "--nec",
    default="5",
    show_default=True,
    callback=parse.sparsity,
    metavar="N|auto",
    help="Concepts a class.",
)
@click.option(
    "--table",
    default="1,2,3,5,10,15,20,30",
    show_default=True,
    callback=parse.sparsities,
    metavar="N,...",
    help="Sparsities fitted beside it.",
)
@click.option(
    "--budget",
    type=click.Choice(["class", "all"]),
    default="class",
    show_default=True,
    help="Share out the weights evenly, or freely.",
)
@click.option(
    "--refit/--no-refit",
    default=True,
    show_default=True,
    help="Refit what pruning leaves; without: largest weights of the l1 path.",
)
@click.option(
    "--l2",
    default="auto",
    show_default=True,
    callback=parse.ridge,
    metavar="X|auto",
    help="Ridge penalty; auto: by validation.",
)
@click.option(
    "--lam",
    type=click.FloatRange(0, min_open=True),
    default=0.02,
    show_default=True,
    help="pcbm: its penalty.",
)
@click.option(
    "--bank",
    type=click.Choice(["text", "cav"]),
    default="text",
    show_default=True,
    help="Concepts from names, or from --truth.",
)
@click.option(
    "--select",
    type=click.Choice(["labo", "random", "all"]),
    default="labo",
    show_default=True,
    help="Which concepts of the bank to use.",
)
@click.option(
    "--per-class",
    type=click.IntRange(1),
    default=25,
    show_default=True,
    help="Concepts selected for each class.",
)
@click.option(
    "--dedup",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Drop concepts whose cosine with another is above this.",
)
@click.option("--keep-class-names", is_flag=True, help="Keep concepts that contain the name of a class.")
@click.option(
    "--normalize/--no-normalize",
    default=True,
    show_default=True,
    help="Scores are cosines, or plain products.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="labo --paper, sparse, gumbel, contrastive, ecbm, motif.",
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of the rows that choices are judged by.",
)
@click.option("--audit", is_flag=True, help="Report how far the annotations can tell concepts apart.")
@click.option("--strict", is_flag=True, help="With --audit: exit 4 where they cannot.")
@click.option("--demo", is_flag=True, help="INPUT is WordNet: definitions into 24 classes.")
@click.option("--encoder", metavar="DIR", help="With --demo: the static text encoder.")
@click.option(
    "--demo-data", metavar="DIR", help="With --demo: write its rows, concepts and annotations there."
)
@options.common
def command(session: Session, source: str, output: str, force: bool, concepts: str | None, truth: str | None,
            audit: bool, strict: bool, demo: bool, encoder: str | None, demo_data: str | None,
            **given: Any) -> None:  # fmt: skip
    """Concepts between the embeddings in INPUT and their labels, so few a class that a person can read them.

    INPUT holds x [N, d] and label [N], as bntools embed writes them. A path as output: the report goes to standard
    output; else the artifact does.
    """
    from bntools.core.errors import usage
    from bntools.tools.cbm_build.settings import Settings

    files = {name: given.pop(name) for name in _FILES}
    settings = Settings(**given, seed=session.seed)
    _set_threads(session)
    _check(session, output, force)
    made = None
    if demo:
        made = _demo(session, source, encoder, demo_data, force)
        sources = made.sources
        if settings.layer == "text":
            terminal.detail(session, "hypernyms are the annotations of --bank cav")
    else:
        from bntools.tools.cbm_build.sources import Files, read_sources

        sources = read_sources(Files(source, concepts, truth, **files), settings)
    if (audit or strict) and sources.truth is None:
        raise usage("--audit looks at annotations", "--truth FILE")
    if session.dry_run:
        return _plan(session, sources, settings)
    return _run(session, (sources, made), settings, (output, force), (audit or strict, strict))


def _set_threads(session: Session) -> None:
    """numpy's threads follow OMP_NUM_THREADS alone, which is read when it is loaded."""
    import os

    if session.threads:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(session.threads))


def _check(session: Session, output: str, force: bool) -> None:
    import sys

    from bntools.core.artifact.writer import STDOUT, check_target
    from bntools.core.errors import usage

    if not session.dry_run and output == STDOUT and sys.stdout.isatty():
        raise usage("an artifact is not written to a terminal", "-o cbm.safetensors, or a pipe")
    if output != STDOUT:
        check_target(output, force)


def _demo(session: Session, source: str, encoder: str | None, folder: str | None, force: bool) -> Any:
    from bntools.core.errors import usage
    from bntools.tools.cbm_build.demo import sources as demo

    if encoder is None:
        raise usage(
            "--demo needs a static text encoder",
            "bntools fetch wordllama -o wordllama/; --encoder wordllama/",
        )
    made = demo.demo(source, encoder, session.seed)
    if folder is not None:
        for path in demo.write_files(made, folder, force=force):
            terminal.note(session, f"wrote {path}")
    return made


def _plan(session: Session, sources: Any, settings: Any) -> None:
    rows, width = sources.data.x.shape
    text = sources.concepts.x if sources.concepts else []
    count = len(sources.truth.names if settings.layer == "cav" and sources.truth else text)
    report = {
        "kind": "plan", "rows": rows, "dimensions": width, "concepts": count, "method": settings.method,
        "memory_bytes": 150_000_000 + 12 * rows * width + 8 * count * count,
    }  # fmt: skip
    shown = [[key.replace("_", " "), f"{value:,}" if isinstance(value, int) else value]
             for key, value in report.items() if key != "kind"]  # fmt: skip
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], shown)))


def _run(
    session: Session, inputs: Any, settings: Any, target: tuple[str, bool], audit: tuple[bool, bool]
) -> None:
    from bntools.core.artifact.writer import STDOUT, Writer
    from bntools.core.methods.cbm import formats
    from bntools.core.model import history
    from bntools.tools.cbm_build import builders, table

    sources, made = inputs
    model, report = builders.build(sources, settings, functools.partial(terminal.progress, session))
    if audit[0]:
        from bntools.tools.cbm_build.audit import audit as inspect

        report["audit"] = inspect(sources.truth, sources.data.need_labels())
    if made is not None:
        annotated = settings.layer == "cav"
        report["test"] = formats.scores_of(model)(model, made.test, made.test_truth if annotated else None)
    origin = {"label": sources.data.label, "rows": len(sources.data.x), "sha256": sources.data.sha256}
    kind = formats.format_of(model)
    with Writer(target[0], kind.kind, force=target[1]) as out:
        kind.write(out, model)
        stage = history.entry("cbm-build", options.argv(), session.seed, [origin], session.started)
        out.describe("history", [stage])
        out.describe("report", {key: report[key] for key in ("kind", "method", "nec", "path", "baselines")})
    if target[0] == STDOUT:
        terminal.note(session, table.summary(report))
    else:
        report["output"] = out.manifest
        terminal.emit(session, report, lambda console: table.draw(console, report))
    if audit[1] and report["audit"]["findings"]:
        from bntools.core.errors import GATE, BnError

        raise BnError(
            f"the audit has {len(report['audit']['findings'])} findings",
            "without --strict they are only reported",
            GATE,
        )
