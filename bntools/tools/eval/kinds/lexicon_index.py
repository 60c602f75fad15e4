"""Recall, bytes and time of a lexicon on queries, beside the dense search whose order it stands for."""

from __future__ import annotations

from typing import Any

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.errors import GATE, BnError
from bntools.core.methods.vector_index import lexicon
from bntools.core.methods.vector_index.exact import exact, exact_scores, recalls
from bntools.core.progress import Progress
from bntools.tools.eval.kinds import Request, vector_index

_OPTIONS = {"k": 10, "queries": 1000, "gate_recall": None}


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report. Data are the test queries and the vectors behind the lexicon; options k, queries, gate_recall."""
    settings = vector_index.settings_of(request, _OPTIONS)
    index = lexicon.read(source)
    base, queries = vector_index.base_and_queries(
        request, index, int(settings["queries"]), "name the file the index was built from"
    )
    k = min(int(settings["k"]), len(index))
    with progress("scoring", len(queries)) as advance:
        truth = exact(base, queries, k, index.metric)
        hits = lexicon.search(index, queries, min(5 * k, len(index)), threads=request.threads or 1)
        values = exact_scores(base, queries, hits.rows, index.metric)
        advance(len(queries))
    first = recalls(hits.rows[:, :k], truth, values[:, :k])
    recall = {"mean": float(first.mean()), "se": vector_index.standard_error(first)}
    report = {
        "kind": "lexicon-index-score",
        "n": len(index),
        "dims": index.width,
        "metric": index.metric,
        "method": "lexicon",
        "k": k,
        "queries": len(queries),
        "recall": recall,
        "lost_against_dense": 1 - recall["mean"],
        "recall_in_5k": float(recalls(hits.rows, truth, values).mean()),
        "recall_heldout": index.facts.get("recall_heldout"),
        "untrained": index.facts.get("untrained"),
        "bytes_per_vector": index.bytes_per_vector(),
        "postings_per_query": lexicon.touched(index, queries),
        "total_bytes": source.nbytes,
        "build_seconds": index.facts.get("seconds"),
    }
    report |= vector_index.times(base, queries, index.metric, lambda q: lexicon.search(index, q, k))
    report["baselines"] = vector_index.baselines(base, queries, truth, index)
    if settings["gate_recall"] is not None and recall["mean"] < float(settings["gate_recall"]):
        raise BnError(f"recall@{k} {recall['mean']:.4f} is under {settings['gate_recall']}", "", GATE)
    return report


def tables(report: dict[str, Any]) -> list[Any]:
    """Recall of the dense best beside dense codes of as many bytes, then time."""
    three = terminal.three
    rows = [[b["name"], f"{b['bytes_per_vector']:,.0f}", three(b["recall"]["mean"]), three(b["recall"]["se"])]
            for b in report["baselines"]]  # fmt: skip
    recall = report["recall"]
    rows.append(
        ["this lexicon", f"{report['bytes_per_vector']:,.0f}", three(recall["mean"]), three(recall["se"])]
    )
    first = terminal.table(
        [f"recall@{report['k']} of the dense best", "bytes a vector", "recall", "± se"], rows
    )
    rest = [["lost against dense search", three(report["lost_against_dense"])],
            ["postings a query / vectors", three(report["postings_per_query"])],
            ["CPU a query (us)", three(report["us_per_query"])],
            ["exact, all at once (us)", three(report["us_exact_batch"])],
            ["exact, one by one (us)", three(report["us_exact_single"])]]  # fmt: skip
    return [first, terminal.table([f"{report['n']:,} vectors, {report['queries']:,} queries", "value"], rest)]
