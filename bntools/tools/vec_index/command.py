"""bntools vec-index: parse, build an index, search one or change its rows, write."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.core.errors import bad_input, usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools vec-index base.safetensors --queries learn.safetensors -o base.vec
  bntools vec-index base.npy --queries learn.npy --recall 0.95 --second lvq8 -o base.vec
  bntools vec-index base.vec --search test.npy -k 10 > hits.jsonl
  bntools eval base.vec --data test.npy --data base.npy
"""
_METHODS = ["auto", "sphere", "leanvec-id", "leanvec-fw", "leanvec-es", "flat", "lexicon"]
_CODES = ["vq", "bits", "lvq8", "lvq4", "lvq4x8", "f16"]


@click.command("vec-index", short_help="Index vectors in few bytes for queries to come.", epilog=EPILOG)
@options.input_argument(example="bntools vec-index base.npy --queries learn.npy -o base.vec")
@options.output
@option_blocks.tensor()
@click.option(
    "--queries", "learn", metavar="FILE", help="Queries like those to come: the map is fitted to them."
)
@click.option("--metric", type=click.Choice(["ip", "cos", "l2"]), default="ip", show_default=True,
              help="Inner product, cosine, or distance.")  # fmt: skip
@click.option("--method", type=click.Choice(_METHODS), default="auto", show_default=True,
              help="The map before coding; auto: sphere or leanvec-id, by queries held out.")  # fmt: skip
@click.option("--code", type=click.Choice(_CODES), default="vq", show_default=True,
              help="How the mapped coordinates are coded.")  # fmt: skip
@click.option("--bytes", "size", type=int, metavar="N", show_default="96, or as --recall needs",
              help="Bytes a vector, all but the second code.")  # fmt: skip
@click.option("--recall", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="R",
              help="Choose the fewest bytes whose recall of the true 10 is R on held-out queries.")  # fmt: skip
@click.option("--second", type=click.Choice(["none", "lvq8", "f16"]), default="none", show_default=True,
              help="A finer copy beside the code, to re-rank by.")  # fmt: skip
@click.option("--rerank", type=click.IntRange(1), metavar="R", show_default="50 with a second code",
              help="Re-rank so many by the second code.")  # fmt: skip
@click.option(
    "--dims", type=click.IntRange(1), help="Coordinates after the map.  [default: all, half, or as --bytes]"
)
@click.option("--shrink", type=click.FloatRange(0.0001, 1), default=0.01, show_default=True,
              help="Of sphere: how far the queries' moments are drawn to equal ones.")  # fmt: skip
@click.option("--cells", type=click.IntRange(0, 256), show_default="256 from 10,000 rows on",
              help="Centroids that vectors are coded relative to; 0: none.")  # fmt: skip
@click.option("--paper", is_flag=True, help="Of leanvec-fw: the paper's start, step and stop.")
@click.option("--graph", is_flag=True, help="Link near vectors, so that a search visits few.")
@click.option("--degree", type=click.IntRange(2, 512), default=32, show_default=True,
              help="Of the graph: links a vector at most.")  # fmt: skip
@click.option("--ef-build", type=click.IntRange(2), default=100, show_default=True,
              help="Of the graph: candidates a walk of the build keeps.")  # fmt: skip
@click.option("--vocabulary", metavar="FILE", help="Of lexicon: vectors of the words.")
@click.option("--kept", type=click.IntRange(1), default=32, show_default=True,
              help="Of lexicon: words of a vector.")  # fmt: skip
@click.option("--kept-queries", type=click.IntRange(1), default=32, show_default=True,
              help="Of lexicon: words of a query.")  # fmt: skip
@click.option("--flops", type=click.FloatRange(0), default=0.03, show_default=True,
              help="Of lexicon: how hard words in common use are pressed down.")  # fmt: skip
@click.option("--steps", type=click.IntRange(0), default=350, show_default=True,
              help="Of lexicon: steps of training.")  # fmt: skip
@click.option("--search", "asked", metavar="FILE", help="Search INPUT, an index, for the queries in FILE.")
@click.option(
    "-k", type=click.IntRange(1), default=10, show_default=True, help="With --search: so many hits a query."
)
@click.option("--probe", type=click.FloatRange(0, 1, min_open=True), show_default="all, or along the graph",
              help="With --search: scan the best cells, with this share of the vectors.")  # fmt: skip
@click.option("--ef", type=click.IntRange(1), show_default="as the build measured",
              help="With --search: candidates kept along the graph.")  # fmt: skip
@click.option("--add", metavar="FILE", help="Add the rows of FILE to INPUT, an index, as a new segment.")
@click.option("--alone", is_flag=True, help="With --add: write the new rows only, to be gathered later.")
@click.option("--delete", metavar="FILE", help="Take the ids in FILE, one a line, out of INPUT, an index.")
@click.option("--gather", multiple=True, metavar="FILE",
              help="Join the rows of FILE, an index, and all segments into one.")  # fmt: skip
@click.option("--compact", is_flag=True, help="Join the segments of INPUT into one, without deleted rows.")
@options.common
def command(session: Session, source: str, output: str, force: bool, asked: str | None, k: int, probe: float | None,
            ef: int | None, **given: Any) -> None:  # fmt: skip
    """Build an index of the vectors in INPUT that answers queries in few bytes a vector.

    INPUT is activations, another safetensors file, .npy, .npz, a model's directory (its unembedding), or -; with
    --search, --add, --delete, --gather or --compact an index.
    """
    change = {name: given.pop(name) for name in ("add", "alone", "delete", "gather", "compact")}
    if change["alone"] and change["add"] is None:
        raise usage("--alone is for the rows that --add codes", "--add FILE --alone")
    if asked and any(change.values()):
        raise usage("--search and a change of the index are two commands", "give one of them")
    if asked is None and (probe or ef):
        raise usage(f"--{'probe' if probe else 'ef'} says how far --search goes", "--search FILE")
    session.apply()
    if asked is not None:
        effort = (given["rerank"], probe, ef)
        return _search(session, source, asked, k, effort=effort, tensor=given["tensor"])
    if any(change.values()):
        return _change(session, source, change, output=output, force=force, tensor=given["tensor"])
    words = {name: given.pop(name) for name in ("vocabulary", "kept", "kept_queries", "flops", "steps")}
    if given["method"] == "lexicon":
        from bntools.tools.vec_index import lexicon_run

        settings = lexicon_run.settings_of(given, words, session.seed)
        files = (given["tensor"], given["learn"], words["vocabulary"])
        return lexicon_run.build(session, source, files, output=output, force=force, settings=settings)
    if words["vocabulary"] is not None:
        raise usage("--vocabulary is for --method lexicon", "--method lexicon")
    return _build(session, source, output, force=force, given=given)


def _build(session: Session, source: str, output: str, *, force: bool, given: dict[str, Any]) -> None:
    from bntools.core.artifact.writer import Writer, check_target
    from bntools.core.methods.vector_index.inputs import open_vectors, read_queries
    from bntools.tools.vec_index import build
    from bntools.tools.vec_index.settings import Settings

    tensor, learn, size = given.pop("tensor"), given.pop("learn"), given.pop("size")
    settings = Settings(**given, bytes=size, seed=session.seed, threads=_threads(session))
    _fits(settings)
    if not session.dry_run:
        check_target(output, force)
    opened = open_vectors(source, tensor)
    queries = None if learn is None else read_queries(learn, None, opened.vectors.width, opened.label)
    build.check(settings, opened.vectors.width, None if queries is None else len(queries))
    if session.dry_run:
        return _plan(session, opened, settings, queries)
    _advise(session, opened, queries)
    with Writer(output, "vector-index", force=force) as out:
        index = build.build_index(
            opened.vectors, queries, settings, functools.partial(terminal.progress, session)
        )
        _finish(session, index, opened, out)
    terminal.manifest(out.manifest)
    facts, recall = index.facts, index.facts["recall_heldout"]
    measured = "" if recall is None else f", recall@10 {recall['mean']:.3f} on queries held out"
    return terminal.note(
        session,
        f"{facts['n']:,} vectors, {facts['method']}, {facts['bytes_per_vector']:g} bytes each{measured}",
    )


def _finish(session: Session, index: Any, opened: Any, out: Any) -> None:
    from dataclasses import replace

    from bntools.core.methods.vector_index import storage
    from bntools.core.model import history

    if opened.ids is not None:
        index = replace(index, names=opened.ids)
    storage.write(index, out)
    inputs = [{"label": opened.label}]
    entry = history.entry(session.tool, options.argv(), session.seed, inputs, session.started)
    out.describe("history", [*opened.history, entry])
    out.describe("report", {"kind": "vector-index", **index.facts})


def _fits(settings: Any) -> None:
    """Refuse options that exclude each other (exit 2)."""
    if settings.bytes is not None and settings.recall is not None:
        raise usage("--bytes says the size and --recall looks for it", "give one of them")
    if settings.rerank is not None and settings.second == "none":
        raise usage("--rerank orders by a second code, and there is none", "--second lvq8")
    if settings.dims is not None and settings.bytes is not None and not settings.allots:
        raise usage(
            f"--dims and --bytes both say how many coordinates --code {settings.code} keeps",
            "give one of them",
        )
    if settings.cells and not settings.allots:
        raise usage(f"--cells are for --code vq and bits, not {settings.code}", "--code vq")
    if settings.paper and settings.method != "leanvec-fw":
        raise usage("--paper is for --method leanvec-fw", "--method leanvec-fw")


def _threads(session: Session) -> int:
    import torch

    return session.threads or torch.get_num_threads()


def _advise(session: Session, opened: Any, queries: Any) -> None:
    if queries is None:
        terminal.note(
            session,
            "no queries: fitted to the vectors alone; if queries come from another source, --queries FILE",
        )
    elif len(queries) < 2 * opened.vectors.width:
        terminal.note(
            session,
            f"{len(queries):,} queries are few for {opened.vectors.width} coordinates; twice as many are sure",
        )


def _plan(session: Session, opened: Any, settings: Any, queries: Any) -> None:
    n, width = opened.vectors.rows, opened.vectors.width
    size = settings.bytes or 96
    report = {"kind": "plan", "rows": n, "width": width, "queries": 0 if queries is None else len(queries),
              "writes_bytes": n * size + 4 * width * (2 * width + 512),
              "memory_bytes": 400_000_000 + n * (2 * size + 16) + 4 * 16384 * width}  # fmt: skip
    rows = [[key.replace("_", " "), f"{value:,}"] for key, value in report.items() if isinstance(value, int)]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _open(source: str) -> Any:
    """The artifact of an index. Raises BnError (exit 3) for what is no artifact."""
    from bntools.core.artifact.reader import Artifact
    from bntools.core.model.open import open_input

    opened = open_input(source)
    if not isinstance(opened, Artifact):
        raise bad_input(f"{source} is no vector index", "bntools vec-index base.npy -o base.vec makes one")
    return opened


def _open_index(source: str) -> tuple[Any, Any]:
    from bntools.core.methods.vector_index import storage

    opened = _open(source)
    return opened, storage.read(opened)


def _search(
    session: Session, source: str, asked: str, k: int, *, effort: tuple[Any, ...], tensor: str | None
) -> None:
    from bntools.core.methods.vector_index import storage
    from bntools.core.methods.vector_index.inputs import read_queries
    from bntools.tools.vec_index.hits import SearchOptions, lines

    opened = _open(source)
    if opened.kind == "lexicon-index":
        from bntools.tools.vec_index import lexicon_run

        if any(value is not None for value in effort):
            raise usage("--rerank, --probe and --ef are not for a lexicon, which is searched whole")
        for line in lexicon_run.search(session, opened, asked, k, tensor):
            click.echo(line)
        return None
    index = storage.read(opened)
    if k > len(index):
        raise usage(f"-k {k}: the index holds {len(index)} vectors", f"-k {len(index)} at most")
    if effort[0] is not None and index.second is None:
        raise usage("--rerank orders by a second code, and the index has none", "build it with --second lvq8")
    if effort[2] is not None and index.graph is None:
        raise usage("--ef keeps candidates along a graph, and the index has none", "build it with --graph")
    queries = read_queries(asked, tensor, index.width, "the index")
    if session.dry_run:
        report = {"kind": "plan", "queries": len(queries), "rows": len(index), "writes_lines": len(queries)}
        rows = [[key, f"{value:,}"] for key, value in report.items() if isinstance(value, int)]
        return terminal.emit(session, report, lambda c: c.print(terminal.table(["plan", "value"], rows)))
    with terminal.progress(session, "searching", len(queries)) as advance:
        for line in lines(index, queries, k, effort=SearchOptions(*effort), threads=_threads(session)):
            click.echo(line)
            advance(1)
    return None


def _change(
    session: Session, source: str, change: dict[str, Any], *, output: str, force: bool, tensor: str | None
) -> None:
    from bntools.core.artifact.writer import Writer, check_target
    from bntools.core.methods.vector_index.inputs import Opened, open_vectors
    from bntools.tools.vec_index import segments, ways
    from bntools.tools.vec_index.hits import read_ids

    opened, index = _open_index(source)
    if not session.dry_run:
        check_target(output, force)
    if change["gather"] or change["compact"]:
        before = index
        index = segments.join([index, *(_open_index(part)[1] for part in change["gather"])])
        if before.graph is not None and not session.dry_run:
            progress = functools.partial(terminal.progress, session)
            index = ways.linked_again(index, before, session.seed, progress)
    if change["add"] is not None:
        more = open_vectors(change["add"], tensor)
        extend = segments.segment if change["alone"] else segments.add
        index = extend(index, more.vectors, more.ids, _threads(session))
    if change["delete"] is not None:
        index = segments.delete(index, read_ids(change["delete"]))
    index = segments.counted(index)
    if session.dry_run:
        report = {"kind": "plan", "rows": len(index)}
        rows = [["rows", f"{len(index):,}"]]
        return terminal.emit(session, report, lambda c: c.print(terminal.table(["plan", "value"], rows)))
    with Writer(output, "vector-index", force=force) as out:
        _finish(session, index, Opened(None, None, opened.history, opened.label), out)  # type: ignore[arg-type]
    return terminal.manifest(out.manifest)
