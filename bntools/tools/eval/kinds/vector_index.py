"""Recall, bytes and time of a vector index on queries, beside exact search and codes that know no queries."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.errors import GATE, BnError, bad_input, usage
from bntools.core.methods.vector_index import storage
from bntools.core.methods.vector_index.exact import Vectors, exact, exact_scores, recalls
from bntools.core.methods.vector_index.index import Floats, Hits, VectorIndex, prepare
from bntools.core.methods.vector_index.inputs import open_vectors, read_queries
from bntools.core.methods.vector_index.lexicon import Lexicon
from bntools.core.methods.vector_index.searching import search
from bntools.core.progress import Progress
from bntools.kernels.vectors import locally_adaptive, product
from bntools.tools.eval.kinds import Request

DEPTHS = (1, 10, 100)
_DEEP, _TIMED, _TRAINED = 50, 20, 16384
_OPTIONS = {"k": 10, "rerank": None, "probe": None, "ef": None, "queries": 1000, "gate_recall": None}


def base_and_queries(request: Request, index: Any, most: int, hint: str) -> tuple[Any, Any]:
    """The vectors behind an index and at most so many test queries, of `--data QUERIES --data BASE`.

    Raises BnError: exit 2 for another number of files, 3 for vectors that are not the index's, with this hint.
    """
    if len(request.data) != 2:
        raise usage("an index is scored with queries and the vectors it was built from",
                    "--data QUERIES --data BASE")  # fmt: skip
    base = open_vectors(request.data[1]).vectors
    if (base.rows, base.width) != (len(index), index.width):
        raise bad_input(
            f"{request.data[1]} has {base.rows:,} vectors of {base.width}, the index {len(index):,} of {index.width}",
            hint,
        )
    return base, read_queries(request.data[0], None, index.width, "the index")[:most]


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report. Data are the test queries and the vectors the index was built from, in this order.

    Options: k, rerank, probe, ef, queries (at most so many are searched) and gate_recall (exit 4 below it).
    """
    settings = settings_of(request, _OPTIONS)
    index = storage.read(source)
    base, queries = base_and_queries(
        request,
        index,
        int(settings["queries"]),
        "name the file the index was built from, with rows added and without rows deleted",
    )
    k, threads = min(int(settings["k"]), len(index)), request.threads or 1
    deep = min(max(max(DEPTHS), k), len(index))
    rerank = 0 if index.second is None else int(settings["rerank"] or index.facts.get("rerank") or _DEEP)
    ask: Callable[..., Hits] = lambda q, r: search(  # noqa: E731
        index,
        q,
        min(r, len(index)),
        rerank=min(rerank, len(index)),
        probe=None if settings["probe"] is None else float(settings["probe"]),
        ef=None if settings["ef"] is None else int(settings["ef"]),
        threads=threads,
    )
    with progress("scoring", len(queries)) as advance:
        truth = exact(base, queries, deep, index.metric)
        hits = ask(queries, deep)
        hits = hits._replace(rows=_rank(index)[hits.rows])
        scores = exact_scores(base, queries, hits.rows, index.metric)
        advance(len(queries))
    report = _report(source, index, truth, (hits, scores), k)
    report |= {"rerank": rerank, "probe": settings["probe"], "ef": settings["ef"] or index.facts.get("ef")}
    report["queries"] = len(queries)
    report |= times(base, queries, index.metric, lambda q: ask(q, k))
    at = _cut(truth, k)
    report["baselines"] = baselines(base, queries, at, index)
    if settings["gate_recall"] is not None and report["recall"]["mean"] < float(settings["gate_recall"]):
        raise BnError(
            f"recall@{k} {report['recall']['mean']:.4f} is under {settings['gate_recall']}", "", GATE
        )
    return report


def _rank(index: VectorIndex) -> Any:
    """Of each row of the index its number among those that were not taken out."""
    return np.cumsum(np.concatenate([part.alive for part in index.parts])) - 1


def settings_of(request: Request, known: dict[str, Any]) -> dict[str, Any]:
    """Options of --set over their defaults, positive numbers. Raises BnError (exit 2)."""
    unknown = set(request.options) - set(known)
    if unknown:
        raise usage(f"an index has no setting {min(unknown)}", f"one of {', '.join(known)}")
    chosen = {**known, **request.options}
    for name, value in chosen.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or value <= 0
        ):
            raise usage(f"--set {name}={value}: a positive number", f"--set {name}={known[name] or 50}")
    return chosen


def _cut(truth: Hits, k: int) -> Hits:
    return Hits(truth.rows[:, :k], truth.scores[:, :k])


def _report(
    source: Artifact, index: VectorIndex, truth: Hits, recall: tuple[Hits, Floats], k: int
) -> dict[str, Any]:
    hits, scores = recall
    deep = truth.rows.shape[1]
    values = recalls(hits.rows[:, :k], _cut(truth, k), scores[:, :k])
    facts = index.facts
    mean = float(values.mean())
    promised = facts.get("recall_promised")
    held = facts.get("recall_heldout")
    return {
        "kind": "vector-index-score",
        "n": len(index),
        "dims": index.width,
        "metric": index.metric,
        "method": facts.get("method"),
        "code": facts.get("code"),
        "k": k,
        "recall": {"mean": mean, "se": standard_error(values)},
        "recall_at": {
            str(d): float(recalls(hits.rows[:, :d], _cut(truth, d), scores[:, :d]).mean())
            for d in DEPTHS if d <= deep
        },
        "recall_in_50": float(recalls(hits.rows[:, :_DEEP], _cut(truth, k), scores[:, :_DEEP]).mean()),
        "recall_promised": promised,
        "recall_heldout": held,
        "promised_less_measured": None if promised is None else promised - mean,
        "bytes_per_vector": index.bytes_per_vector(),
        "second_bytes_per_vector": facts.get("second_bytes_per_vector", 0),
        "graph_bytes_per_vector": facts.get("graph_bytes_per_vector", 0),
        "total_bytes": source.nbytes,
        "build_seconds": facts.get("seconds"),
    }  # fmt: skip


def times(base: Vectors, queries: Floats, metric: str, ask: Callable[[Floats], Hits]) -> dict[str, Any]:
    """Microseconds of CPU a query: the index, exact search of all queries at once, exact search one by one."""
    asked = queries[: min(len(queries), 256)]
    ask(asked[:1])
    ours = _seconds(lambda: ask(asked)) / len(asked)
    whole = prepare(base.read(0, base.rows), metric) if base.rows * base.width < 1 << 28 else None
    if whole is None:
        return {"us_per_query": 1e6 * ours, "us_exact_batch": None, "us_exact_single": None, "ratio": None}
    top = min(10, base.rows - 1)
    batch = _seconds(lambda: np.argpartition(-(asked @ whole.T), top, axis=1)) / len(asked)
    few = asked[:_TIMED]
    single = _seconds(lambda: [np.argpartition(-(whole @ q), top) for q in few]) / len(few)
    return {"us_per_query": 1e6 * ours, "us_exact_batch": 1e6 * batch, "us_exact_single": 1e6 * single,
            "ratio": ours / batch}  # fmt: skip


def _seconds(job: Callable[[], Any]) -> float:
    began = time.process_time()
    job()
    return time.process_time() - began


def baselines(
    base: Vectors, queries: Floats, truth: Hits, index: VectorIndex | Lexicon
) -> list[dict[str, Any]]:
    """Recall of codes that know no queries: at the index's bytes the first coordinates and the principal axes, in
    float16; plain product quantization; eight bits a coordinate; by faiss, where it is installed, RaBitQ."""
    if base.rows * base.width > 1 << 27:
        return []
    x = prepare(base.read(0, base.rows), index.metric)
    q = prepare(queries, index.metric)
    dims = max(1, min(index.width, int(index.bytes_per_vector() // 2)))
    axes = np.linalg.eigh((x.T @ x).astype(np.float64))[1][:, ::-1][:, :dims].astype(np.float32)
    tried: list[tuple[str, float, Floats, Floats]] = [
        (
            "first coordinates, float16",
            2.0 * dims,
            q[:, :dims],
            x[:, :dims].astype(np.float16).astype(np.float32),
        ),
        ("principal axes, float16", 2.0 * dims, q @ axes, (x @ axes).astype(np.float16).astype(np.float32)),
        ("8 bits a coordinate", index.width + 4.0, q, locally_adaptive.decode(locally_adaptive.encode(x, 8))),
    ]
    book = product.plain_codebook(
        x[:: max(1, len(x) // _TRAINED)], int(min(index.bytes_per_vector(), index.width)), 0
    )
    words = product.decode(product.encode(x, book, passes=0), book, index.width)
    tried.append(("PQ", float(len(book.groups.start) - 1), q, words))
    rows = []
    for name, size, left, right in tried:
        products = left @ right.T
        if index.metric == "l2":
            products -= 0.5 * np.einsum("nd,nd->n", right, right)
        chosen = np.argpartition(-products, min(truth.rows.shape[1], base.rows) - 1, axis=1)[
            :, : truth.rows.shape[1]
        ]
        rows.append(_baseline(name, size, chosen, (base, queries, truth, index.metric)))
    return rows + _by_faiss(x, q, (base, queries, truth, index.metric), index.bytes_per_vector())


def _baseline(name: str, size: float, rows: Any, task: tuple[Vectors, Floats, Hits, str]) -> dict[str, Any]:
    base, queries, truth, metric = task
    values = recalls(rows, truth, exact_scores(base, queries, rows, metric))
    return {
        "name": name,
        "bytes_per_vector": size,
        "recall": {"mean": float(values.mean()), "se": standard_error(values)},
    }


def _by_faiss(
    x: Floats, q: Floats, task: tuple[Vectors, Floats, Hits, str], size: float
) -> list[dict[str, Any]]:
    """RaBitQ at no fewer bytes than the index has, if faiss (extra `index`) is here."""
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        return []
    width, k = x.shape[1], task[2].rows.shape[1]
    bits = next((b for b in range(1, 10) if b * width / 8 + 8 >= size), 9)
    metric = faiss.METRIC_L2 if task[3] == "l2" else faiss.METRIC_INNER_PRODUCT
    other = faiss.index_factory(width, f"RR{width},RaBitQ{bits if bits > 1 else ''}", metric)
    other.train(x[:20_000])
    other.add(x)
    chosen = other.search(q, k)[1]
    return [_baseline(f"RaBitQ, {bits} bits (faiss)", float(other.sa_code_size()), chosen, task)]


def standard_error(values: Any) -> float:
    return float(values.std() / max(len(values) - 1, 1) ** 0.5)


def tables(report: dict[str, Any]) -> list[Any]:
    """Recall beside the baselines, then time."""
    three = terminal.three

    def row(name: str, size: float, recall: dict[str, float]) -> list[str]:
        return [name, f"{size:,.0f}", three(recall["mean"]), three(recall["se"])]

    rows = [row(b["name"], b["bytes_per_vector"], b["recall"]) for b in report["baselines"]]
    rows.append(
        row(
            f"this index ({report['method']}, {report['code']})", report["bytes_per_vector"], report["recall"]
        )
    )
    if report["second_bytes_per_vector"]:
        rows[-1][1] += f" + {report['second_bytes_per_vector']:,.0f}"
    first = terminal.table([f"recall@{report['k']}", "bytes a vector", "recall", "± se"], rows)
    rest = [["in the first 50", three(report["recall_in_50"])]]
    if report["recall_promised"] is not None:
        rest.append(["promised", three(report["recall_promised"])])
    if report["recall_heldout"] is not None:
        rest.append(["held out at the build", three(report["recall_heldout"]["mean"])])
    rest += [["CPU a query (us)", three(report["us_per_query"])],
             ["exact, all at once (us)", three(report["us_exact_batch"])],
             ["exact, one by one (us)", three(report["us_exact_single"])]]  # fmt: skip
    return [first, terminal.table([f"{report['n']:,} vectors, {report['queries']:,} queries", "value"], rest)]
