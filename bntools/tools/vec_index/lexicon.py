"""The lexicon bottleneck: heads that say a vector in words, trained so that sums over words order as products do."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from bntools.core.errors import usage
from bntools.core.methods.vector_index import lexicon
from bntools.core.methods.vector_index.exact import InMemory, exact, exact_scores, recalls
from bntools.core.methods.vector_index.index import Floats, Hits, Indices, prepare
from bntools.core.methods.vector_index.lexicon import Lexicon, WordHead
from bntools.core.progress import Progress
from bntools.kernels.vectors import postings
from bntools.tools.vec_index.report import standard_error

K = 10
SHARPNESS = 40.0
"""Of the dense scores, as shares of the usual lengths, before the softmax that the words are to match."""
_SCALE, _BIAS = 12.0, -3.0
"""A word's own vector starts at a weight of log(1 + 12 - 3), one at a right angle to it at 0."""
_QUERIES, _HARD, _RANDOM, _POOL = 64, 2, 128, 20
_RATE = 6e-4


class LexiconSettings(NamedTuple):
    """kept: words of a vector and of a query that count. flops: weight of the words' squared mean use, which thins the
    lists. steps: of training; 0 leaves the words' own vectors."""

    metric: str = "ip"
    kept: int = 32
    kept_queries: int = 32
    flops: float = 0.03
    steps: int = 350
    seed: int = 0


class Samples(NamedTuple):
    """Rows in memory, prepared for the metric; queries learnt from and held out."""

    base: Floats
    learn: Floats
    held: Floats


def build_lexicon(
    base: Floats, queries: Floats, words: Floats, settings: LexiconSettings, progress: Progress
) -> Lexicon:
    """An index of rows [n, D] by the words [V, D] of a vocabulary, its heads trained on queries [m, D].

    After LexLIP (arXiv 2302.02908), whose bottleneck is log(1 + relu) of a masked language model's logits: here the
    logits are products with the words' vectors, and the teacher is the dense score. Raises BnError: exit 2 for l2,
    which has no such words, and for under 100 queries.
    """
    began = time.monotonic()
    if settings.metric == "l2":
        raise usage("--method lexicon has no words for distances", "--metric cos")
    if len(queries) < 100:
        raise usage(
            f"--method lexicon learns from 100 queries at least, there are {len(queries)}", "--queries FILE"
        )
    torch.manual_seed(settings.seed)
    asked = prepare(queries, settings.metric)
    order, count = np.random.default_rng(settings.seed).permutation(len(asked)), min(len(asked) // 5, 1000)
    samples = Samples(prepare(base, settings.metric), asked[order[count:]], asked[order[:count]])
    start = start_heads(samples, words, settings)
    first = _index(samples, start, settings)
    heads = train(samples, start, settings, progress)
    last = _index(samples, heads, settings)
    return replace(last, facts=_facts(samples, (first, last), settings, time.monotonic() - began))


def start_heads(samples: Samples, words: Floats, settings: LexiconSettings) -> tuple[WordHead, WordHead]:
    """Heads of queries and vectors at the words' own vectors, of length one."""
    unit = prepare(words, "cos") * _SCALE
    bias = np.full(len(words), _BIAS, np.float32)
    return (
        WordHead(_stored(unit / _length(samples.learn)), bias, settings.kept_queries, 1.0),
        WordHead(_stored(unit / _length(samples.base)), bias, settings.kept, 1.0),
    )


def _stored(weight: Floats) -> Floats:
    """Weights as a file keeps them, in float16."""
    return weight.astype(np.float16).astype(np.float32)


def train(
    samples: Samples, start: tuple[WordHead, WordHead], settings: LexiconSettings, progress: Progress
) -> tuple[WordHead, WordHead]:
    """Heads after `steps` of Adam on the divergence of word scores from dense scores within a batch, and the lists'
    squared mean use (FLOPS), which grows in over the first third."""
    if not settings.steps:
        return start
    parameters = [torch.tensor(a, requires_grad=True) for head in start for a in (head.weight, head.bias)]
    optimizer = torch.optim.Adam(
        [{"params": parameters[::2], "lr": _RATE * float(np.abs(start[0].weight).mean() * 10)},
         {"params": parameters[1::2], "lr": _RATE * 10}]
    )  # fmt: skip
    near = exact(InMemory(samples.base), samples.learn, min(_POOL, len(samples.base)), "ip").rows
    random = np.random.default_rng((settings.seed, 4))
    scale = SHARPNESS / (_length(samples.learn) * _length(samples.base))
    with progress("training", settings.steps) as advance:
        for step in range(settings.steps):
            queries, rows = _batch(samples, near, random)
            sharp = torch.log_softmax(torch.from_numpy(queries @ rows.T) * scale, 1)
            mine, theirs = (
                torch.log1p(torch.relu(torch.from_numpy(x) @ w.T + b))
                for x, w, b in ((queries, *parameters[:2]), (rows, *parameters[2:]))
            )
            ramp = min(1.0, 3 * step / settings.steps) ** 2
            use = sum((part.mean(0) ** 2).sum() for part in (mine, theirs))
            words = torch.log_softmax(mine @ theirs.T, 1)
            loss = torch.nn.functional.kl_div(words, sharp, log_target=True, reduction="batchmean")
            optimizer.zero_grad()
            (loss + settings.flops * ramp * use).backward()
            optimizer.step()
            advance(1)
    weights = [p.detach().numpy() for p in parameters]
    return (
        start[0]._replace(weight=_stored(weights[0]), bias=weights[1]),
        start[1]._replace(weight=_stored(weights[2]), bias=weights[3]),
    )


def _batch(samples: Samples, near: Indices, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Some queries; two of the nearest rows of each, and random ones."""
    chosen = random.integers(0, len(samples.learn), min(_QUERIES, len(samples.learn)))
    hard = near[chosen[:, None], random.integers(0, near.shape[1], (len(chosen), _HARD))]
    rows = np.unique(np.concatenate([hard.ravel(), random.integers(0, len(samples.base), _RANDOM)]))
    return samples.learn[chosen], samples.base[rows]


def _length(rows: Floats) -> float:
    """Usual length: the root of the mean square."""
    return float(np.sqrt(np.einsum("nd,nd->", rows, rows, dtype=np.float64) / len(rows)))


def _index(samples: Samples, heads: tuple[WordHead, WordHead], settings: LexiconSettings) -> Lexicon:
    """Lists of all rows, impacts on a grid that reaches the largest weight of a sample."""
    random = np.random.default_rng((settings.seed, 5))
    some = samples.base[
        np.sort(random.choice(len(samples.base), min(4096, len(samples.base)), replace=False))
    ]
    own = [
        head._replace(step=max(float(lexicon.weigh(head, rows)[1].max()), 1e-6) / 255)
        for head, rows in zip(heads, (samples.learn[:4096], some), strict=True)
    ]
    words, whole = lexicon.impacts(own[1], samples.base)
    lists = postings.build(words, whole, len(own[1].bias))
    return Lexicon(settings.metric, own[0], own[1], lists, len(samples.base))


def recall_of(index: Lexicon, samples: Samples, truth: Hits) -> Any:
    """Share of the dense best for each held-out query among as many best by words."""
    rows = lexicon.search(index, samples.held, truth.rows.shape[1]).rows
    return recalls(rows, truth, exact_scores(InMemory(samples.base), samples.held, rows, "ip"))


def _facts(
    samples: Samples, indices: tuple[Lexicon, Lexicon], settings: LexiconSettings, seconds: float
) -> dict[str, Any]:
    """The report of a build."""
    truth = exact(InMemory(samples.base), samples.held, min(K, len(samples.base)), "ip")
    first, last = indices
    recall = recall_of(last, samples, truth)
    untrained = {
        "recall": float(recall_of(first, samples, truth).mean()),
        "bytes_per_vector": first.bytes_per_vector(),
        "postings_per_query": lexicon.touched(first, samples.held),
    }
    return {
        "n": len(last),
        "dims": last.width,
        "method": "lexicon",
        "vocabulary": len(last.lengths),
        "bytes_per_vector": last.bytes_per_vector(),
        "head_bytes": 4 * last.queries.weight.size,
        "postings_per_query": lexicon.touched(last, samples.held),
        "recall_heldout": {"mean": float(recall.mean()), "se": standard_error(recall)},
        "lost_against_dense": 1 - float(recall.mean()),
        "untrained": untrained,
        "flops": settings.flops,
        "steps": settings.steps,
        "queries_learn": len(samples.learn),
        "queries_heldout": len(samples.held),
        "seed": settings.seed,
        "seconds": round(seconds, 2),
    }
