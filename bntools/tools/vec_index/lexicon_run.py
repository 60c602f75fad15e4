"""Building and searching a lexicon by command."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from bntools import options, terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer, check_target
from bntools.core.errors import bad_input, usage
from bntools.core.methods.vector_index import lexicon
from bntools.core.methods.vector_index.index import Floats
from bntools.core.methods.vector_index.inputs import Opened, open_vectors, read_queries
from bntools.core.model import history
from bntools.options import Session
from bntools.tools.vec_index.lexicon import LexiconSettings, build_lexicon


def settings_of(given: dict[str, Any], words: dict[str, Any], seed: int) -> LexiconSettings:
    """Settings of the options; refuses those of other methods (exit 2)."""
    for name in ("size", "recall", "rerank", "dims", "cells"):
        if given[name] is not None:
            raise usage(f"--{'bytes' if name == 'size' else name} is not for --method lexicon", "--kept 16")
    if given["second"] != "none" or given["graph"] or given["paper"]:
        raise usage("--second, --graph and --paper are not for --method lexicon", "--kept 16")
    own = {name: words[name] for name in ("kept", "kept_queries", "flops", "steps")}
    return LexiconSettings(given["metric"], **own, seed=seed)


def build(
    session: Session,
    source: str,
    files: tuple[str | None, ...],
    *,
    output: str,
    force: bool,
    settings: LexiconSettings,
) -> None:
    """Read vectors, queries and vocabulary (`files`: tensor, queries, vocabulary), build and write."""
    tensor, learn, vocabulary = files
    if vocabulary is None:
        raise usage("--method lexicon says vectors in the words of a vocabulary", "--vocabulary FILE")
    if learn is None:
        raise usage("--method lexicon learns from queries", "--queries FILE")
    if not session.dry_run:
        check_target(output, force)
    opened = open_vectors(source, tensor)
    width = opened.vectors.width
    queries = read_queries(learn, None, width, opened.label)
    words, texts = _vocabulary(vocabulary, width, opened.label)
    if session.dry_run:
        report = {"kind": "plan", "rows": opened.vectors.rows, "width": width, "queries": len(queries),
                  "vocabulary": len(words), "writes_bytes": 3 * settings.kept * opened.vectors.rows + 4 * words.size,
                  "memory_bytes": 4 * (width * opened.vectors.rows + 16 * words.size) + 400_000_000}  # fmt: skip
        rows = [[k.replace("_", " "), f"{v:,}"] for k, v in report.items() if isinstance(v, int)]
        return terminal.emit(session, report, lambda c: c.print(terminal.table(["plan", "value"], rows)))
    base = _all_rows(opened)
    with Writer(output, lexicon.KIND, force=force) as out:
        index = build_lexicon(base, queries, words, settings, functools.partial(terminal.progress, session))
        index = lexicon.named(index, opened.ids, texts)
        lexicon.write(index, out)
        entry = history.entry(
            session.tool, options.argv(), session.seed, [{"label": opened.label}], session.started
        )
        out.describe("history", [*opened.history, entry])
        out.describe("report", {"kind": lexicon.KIND, **index.facts})
    terminal.manifest(out.manifest)
    facts = index.facts
    return terminal.note(
        session,
        f"{facts['n']:,} vectors, {facts['bytes_per_vector']:.0f} bytes each; of the dense best ten "
        f"{facts['recall_heldout']['mean']:.3f} are kept, {facts['lost_against_dense']:.3f} lost",
    )


def _all_rows(opened: Opened) -> Floats:
    """All rows of an input, finite ones. Raises BnError (exit 3)."""
    rows = opened.vectors.read(0, opened.vectors.rows)
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        raise bad_input(f"row {int(np.argmin(finite))} holds NaN or infinity", "leave such rows out")
    return rows


def _vocabulary(path: str, width: int, of: str) -> tuple[Floats, tuple[str, ...]]:
    """Vectors of words, and what a column `names` calls them."""
    opened = open_vectors(path)
    if opened.vectors.width != width:
        raise bad_input(
            f"{opened.label} has words of {opened.vectors.width} coordinates, {of} {width}",
            "embed both with one encoder",
        )
    columns = getattr(opened.vectors, "columns", ())
    names = opened.vectors.column("names").tolist() if "names" in columns else []  # type: ignore[attr-defined]
    return _all_rows(opened), tuple(str(n).replace("\n", " ") for n in names)


def search(session: Session, source: Artifact, queries_file: str, k: int, tensor: str | None) -> list[str]:
    """Lines of hits, scores exact sums of the words' impacts."""
    index = lexicon.read(source)
    if k > len(index):
        raise usage(f"-k {k}: the index holds {len(index)} vectors", f"-k {len(index)} at most")
    queries = read_queries(queries_file, tensor, index.width, "the index")
    if session.dry_run:
        return []
    lines: list[str] = []
    with terminal.progress(session, "searching", len(queries)) as advance:
        hits = lexicon.search(index, queries, k, threads=session.threads or 1, advance=advance)
    ids: Any = hits.rows if index.names is None else index.names[hits.rows]
    for number, (row, scores) in enumerate(zip(ids.tolist(), hits.scores.tolist(), strict=True)):
        best = [float(f"{s:.6g}") for s in scores]
        lines.append(json.dumps({"query": number, "ids": row, "scores": best, "exact": False}))
    return lines
