"""Scores to the letter of NLTK and sacrebleu, on small random corpora where every corner case comes up."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from sacrebleu.metrics.bleu import BLEU

from bntools.core.errors import BnError
from bntools.tools.bleu_gpu import scores_device
from bntools.tools.bleu_gpu.definition import define
from bntools.tools.bleu_gpu.scores import bleu_scores, signature
from bntools.tools.bleu_gpu.stats import bleu_stats

WEIGHTS = [(0.5, 0.5), (0.25,) * 4, (0.1, 0.2, 0.3, 0.4), (0.2,) * 5, (0.4, 0.3, 0.3)]
Corpus = tuple[list[list[int]], list[list[list[int]]]]


def corpus(seed: int, rows: int = 60) -> Corpus:
    """Hypotheses of 0 to 60 ids (one of up to 2000), 1 to 8 references a row, often cut from the hypothesis."""
    rng = np.random.default_rng(seed)
    hyps, refs = [], []
    for row in range(rows):
        vocabulary, longest = int(rng.choice([2, 4, 30])), 2000 if row == 0 else int(rng.choice([3, 6, 60]))
        hyp = rng.integers(0, vocabulary, rng.integers(0, longest + 1)).tolist()
        others = []
        for _ in range(rng.integers(1, 9)):
            other = rng.integers(0, vocabulary, rng.integers(0, longest + 1)).tolist()
            cut = rng.integers(0, len(hyp) + 1) if rng.random() < 0.7 else 0
            others.append(hyp[:cut] + other[cut:])
        hyps.append(hyp)
        refs.append(others)
    return hyps, refs


def quiet(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **options)


def nltk_sentence(refs: list[list[int]], hyp: list[int], **options: Any) -> Any:
    """NLTK's score; NaN where its method6 raises."""
    several = isinstance(options["weights"], list)
    try:
        return quiet(sentence_bleu, refs, hyp, **options)
    except AssertionError:
        return [float("nan")] * len(options["weights"]) if several else float("nan")


def both(stats: torch.Tensor, *given: Any, corpus: bool = False, **options: Any) -> torch.Tensor:
    """Scores by the loops of a CPU, which must be those of a GPU's torch operations."""
    found = bleu_scores(stats, *given, corpus=corpus, **options)
    chosen = define(stats.shape[1] // 2 - 1, *given, corpus=corpus, **options)
    on_device = scores_device.scores(stats, chosen, corpus)
    # A quirk of NLTK gives scores up to 205, where 1e-14 is less than one rounding; logarithms of two libraries differ
    # by that on some processors.
    torch.testing.assert_close(found, on_device, rtol=2.3e-16, atol=1e-14, equal_nan=True)
    return found


def close(got: torch.Tensor, want: Any) -> None:
    torch.testing.assert_close(
        got, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12, equal_nan=True
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("method", range(8))
def test_sentence_scores_are_nltks(method: int, seed: int) -> None:
    hyps, refs = corpus(seed)
    function = getattr(SmoothingFunction(), f"method{method}")
    stats = bleu_stats(hyps, refs, max_n=5)
    for weights in [*WEIGHTS, WEIGHTS]:
        if method == 6 and len(weights) == 2:
            continue
        options = {"weights": weights, "smoothing_function": function}
        want = [nltk_sentence(r, h, **options) for h, r in zip(hyps, refs, strict=True)]
        close(both(stats, smoothing=f"method{method}", weights=weights), want)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", range(8))
def test_corpus_scores_are_nltks_quirks_included(method: int, seed: int) -> None:
    hyps, refs = corpus(seed, 6)
    function = getattr(SmoothingFunction(), f"method{method}")
    stats = bleu_stats(hyps, refs, max_n=5)
    for weights in [*WEIGHTS[1:], WEIGHTS]:
        want = quiet(corpus_bleu, refs, hyps, weights=weights, smoothing_function=function)
        close(both(stats, smoothing=f"method{method}", weights=weights, corpus=True), want)


@pytest.mark.parametrize("method", [0, 1, 3])
def test_auto_reweigh_is_nltks(method: int) -> None:
    hyps, refs = corpus(4, 200)
    function = getattr(SmoothingFunction(), f"method{method}")
    stats = bleu_stats(hyps, refs)
    options = {"auto_reweigh": True, "smoothing_function": function}
    want = [float(quiet(sentence_bleu, r, h, **options)) for h, r in zip(hyps, refs, strict=True)]
    close(both(stats, smoothing=f"method{method}", auto_reweigh=True), want)


def test_epsilon_alpha_and_k_are_nltks() -> None:
    hyps, refs = corpus(5)
    functions = SmoothingFunction(epsilon=0.3, alpha=2, k=7)
    for method in (1, 4, 6):
        options = {"weights": (0.25,) * 4, "smoothing_function": getattr(functions, f"method{method}")}
        want = [nltk_sentence(r, h, **options) for h, r in zip(hyps, refs, strict=True)]
        got = both(bleu_stats(hyps, refs), smoothing=f"method{method}", value=0.3, alpha=2, k=7)
        close(got, [float(x) for x in want])


@pytest.mark.parametrize("effective", [True, False])
@pytest.mark.parametrize(
    ("smoothing", "value"),
    [("exp", None), ("floor", None), ("floor", 0.01), ("add-k", None), ("add-k", 2), ("none", None)],
)
def test_scores_are_sacrebleus(smoothing: str, value: float | None, effective: bool) -> None:
    hyps, refs = corpus(6, 120)
    for max_n in (2, 4, 6):
        stats = bleu_stats(hyps, refs, max_n=max_n)
        options = {"mode": "sacrebleu", "smoothing": smoothing, "effective_order": effective, "value": value}

        def score(row: list[int], max_n: int = max_n) -> float:
            found, total = row[2 : 2 + max_n], row[2 + max_n :]
            return BLEU.compute_bleu(found, total, *row[:2], smoothing, value, effective, max_n).score / 100

        close(both(stats, **options), [score(row) for row in stats.tolist()])
        close(both(stats, **options, corpus=True), score(stats.sum(0).tolist()))


def test_statistics_and_defaults_are_sacrebleus_on_text() -> None:
    hyps, refs = corpus(7)
    words = [[" ".join(map(str, r)) for r in row] for row in refs]
    metric = BLEU(tokenize="none", effective_order=True)
    found = [metric.sentence_score(" ".join(map(str, h)), r) for h, r in zip(hyps, words, strict=True)]
    stats = bleu_stats(hyps, refs)
    assert stats.tolist() == [[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in found]
    close(both(stats, "sacrebleu"), [s.score / 100 for s in found])


def test_a_short_sentence_adds_one_to_nltks_corpus_denominator_only() -> None:
    stats = bleu_stats([[1, 2, 3, 4, 5], [1, 2]], [[[1, 2, 3, 4, 5]], [[1, 2]]])
    assert both(stats, corpus=True).item() == pytest.approx(0.5**0.25, abs=1e-12)
    assert both(stats, "sacrebleu", corpus=True).item() == 1


def test_options_that_do_not_fit_are_refused() -> None:
    stats = bleu_stats([[1, 2, 3]], [[[1, 2]]])
    for options in (
        {"mode": "moses"},
        {"smoothing": "exp"},
        {"mode": "sacrebleu", "smoothing": "method1"},
        {"mode": "sacrebleu", "weights": (1.0,)},
        {"effective_order": True},
        {"smoothing": "method5"},
        {"smoothing": "method7"},
        {"smoothing": "method6", "weights": (0.5, 0.5)},
        {"weights": (0.2,) * 5},
        {"weights": ()},
    ):
        with pytest.raises(BnError):
            bleu_scores(stats, **options)
    with pytest.raises(BnError, match="shape"):
        bleu_scores(stats[0])


def test_a_signature_tells_every_choice_apart() -> None:
    choices = [
        {},
        {"mode": "sacrebleu"},
        {"smoothing": "method1"},
        {"smoothing": "method1", "value": 0.3},
        {"max_n": 2},
        {"refs": 4},
        {"corpus": True},
        {"mode": "sacrebleu", "effective_order": False},
    ]
    assert len({signature(**choice) for choice in choices}) == len(choices)
    assert (
        signature("sacrebleu", "floor")
        == "nrefs:1|level:sentence|eff:yes|tok:ids|order:4|smooth:floor[0.10]|mode:sacrebleu"
    )
