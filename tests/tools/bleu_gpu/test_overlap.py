"""Relatives of BLEU are those of the programs people compare with."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from nltk.translate.gleu_score import sentence_gleu
from sacrebleu.metrics import CHRF
from torchmetrics.functional.text import bleu_score

from bntools.core.errors import BnError
from bntools.kernels.ngrams.subsequence import lcs_reference
from bntools.tools.bleu_gpu import BleuReward, bleu_scores, bleu_stats
from bntools.tools.bleu_gpu.overlap import chrf, distinct, gleu, rouge_l, rouge_n
from bntools.tools.bleu_gpu.resample import compare, interval
from bntools.tools.bleu_gpu.scores_cpu import folded
from bntools.tools.bleu_gpu.settings import Settings

RNG = np.random.default_rng(3)
HYPS = [RNG.integers(0, 4, n).tolist() for n in (0, 1, 3, 12, 30, 70, 200)]
REFS = [
    [RNG.integers(0, 4, n).tolist() for n in lengths]
    for lengths in ([3], [0, 2], [3, 3, 9], [12], [0], [66, 80], [131, 64])
]


def close(got, want):
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12)


def test_gleu_is_nltks():
    close(gleu(HYPS, REFS), [float(sentence_gleu(r, h)) for h, r in zip(HYPS, REFS, strict=True)])


def test_chrf_is_sacrebleus_with_ids_for_letters():
    def text(ids):
        return "".join("abcd"[i] for i in ids)

    scores = [
        CHRF().sentence_score(text(h), [text(r) for r in row]) for h, row in zip(HYPS, REFS, strict=True)
    ]
    close(chrf(HYPS, REFS), [s.score / 100 for s in scores])


def f1(common, own, other):
    return 2 * common / (own + other) if common else 0.0


def test_rouge_is_the_harmonic_mean_of_its_definition():
    want = [
        max(f1(lcs_reference(h, r), len(h), len(r)) for r in row) for h, row in zip(HYPS, REFS, strict=True)
    ]
    close(rouge_l(HYPS, REFS), want)
    for n in (1, 2):
        want = []
        for h, row in zip(HYPS, REFS, strict=True):
            tables = [bleu_stats([h], [[r]], max_n=n)[0].tolist() for r in row]
            want.append(max(f1(t[1 + n], t[1 + 2 * n], max(t[1] - n + 1, 0)) for t in tables))
        close(rouge_n(HYPS, REFS, n), want)


def test_distinct_n_counts_different_ngrams_of_a_group():
    close(distinct([[1, 1, 1], [1, 2]], 2, 2), [[2 / 5, 2 / 3]])


def test_corpus_scores_are_those_of_torchmetrics():
    hyps, refs = HYPS[3:], REFS[3:]
    words = [" ".join(map(str, h)) for h in hyps]
    want = bleu_score(words, [[" ".join(map(str, r)) for r in row] for row in refs]).item()
    got = bleu_scores(bleu_stats(hyps, refs), "sacrebleu", "none", corpus=True).item()
    assert got == pytest.approx(want, abs=1e-6)  # torchmetrics counts in float32


@pytest.mark.parametrize("method", range(8))
def test_a_folded_corpus_has_the_score_of_all_its_lines(method):
    stats = bleu_stats(HYPS, REFS, max_n=5)
    for cut in (1, 3, 6):
        twice = torch.from_numpy(folded(np.concatenate([folded(stats[:cut].numpy()), stats[cut:].numpy()])))
        want = bleu_scores(stats, smoothing=f"method{method}", corpus=True)
        torch.testing.assert_close(
            bleu_scores(twice, smoothing=f"method{method}", corpus=True), want, equal_nan=True
        )


def test_an_interval_holds_its_score_and_a_better_system_is_told_from_chance():
    hyps = [RNG.integers(0, 50, 20).tolist() for _ in range(200)]
    refs = [[h[:14] + [99] * 6] for h in hyps]
    worse = [h[:8] + [98] * 12 for h in hyps]
    one, two = bleu_stats(hyps, refs).numpy(), bleu_stats(worse, refs).numpy()
    score = Settings().scores
    found = interval(two, score, 200, 0)
    assert found.low <= found.value <= found.high
    assert interval(two, score, 200, 0) == found
    better = compare(one, two, score, 200, 0)
    assert better.difference.low > 0
    assert better.p_value < 0.01
    # two shuffles of one corpus differ by chance only
    assert compare(one, RNG.permutation(one), score, 200, 0).p_value > 0.05
    with pytest.raises(BnError, match="200 lines against 3"):
        compare(one, two[:3], score, 10, 0)


def test_a_trainer_gets_a_float_a_completion_under_a_name():
    reward = BleuReward("answer", encode=lambda text: [ord(c) for c in text], eos_id=0)
    assert reward.__name__ == "bleu"
    ids = [[97, 98, 99, 100, 0, 5], [97]]
    texts = reward(
        prompts=["", ""], completions=["abcd", "a"], completion_ids=ids, answer=["abcd", ["b", "c"]]
    )
    assert texts == [1.0, 0.0]
    chat = [[{"role": "assistant", "content": "abcd"}]]
    assert reward(prompts=[[]], completions=chat, answer=[[[97, 98, 99, 100]]]) == [1.0]
    assert reward(completion_ids=[[97, 98]], answer=[[97, 98]]) == [1.0]
    with pytest.raises(BnError, match="column"):
        reward(completion_ids=[[1]])
    with pytest.raises(BnError, match="text"):
        BleuReward()(completions=["a"], references=["a"])


def test_relatives_say_nothing_on_empty_input():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (gleu, chrf, rouge_n, rouge_l):
            assert metric([], []).shape == (0,)
            assert metric([[]], [[[]]]).tolist() == [0]


TEXTS = {
    "plain": "abcd efg",
    "empty": "",
    "none": None,
    "message": [{"role": "assistant", "content": "abcd efg"}],
    "message without content": [{"content": None}],
    "parts": [
        {"content": [{"type": "text", "text": "abcd"}, {"type": "image"}, {"type": "text", "text": " efg"}]}
    ],
    "no messages": [],
}
REFERENCES = {
    "plain": "abcd efg",
    "several": ["x", "abcd efg"],
    "ids": [97, 98, 99, 100],
    "none": None,
    "some none": [None, "abcd efg"],
    "all none": [None, None],
    "empty": [],
}


def test_a_reward_takes_whatever_trainers_hand_over():
    """Each kind of completion with each kind of reference; a row without a reference has no reward."""
    reward = BleuReward("answer", encode=lambda text: [ord(c) for c in text])
    for text in TEXTS.values():
        rewards = reward(completions=[text] * len(REFERENCES), answer=list(REFERENCES.values()))
        by_name = dict(zip(REFERENCES, rewards, strict=True))
        assert [name for name, value in by_name.items() if value is None] == ["none", "all none"]
        whole = bool(text) and text != TEXTS["message without content"]
        assert by_name["plain"] == by_name["some none"] == (1 if whole else 0)
    assert reward(completions=[], answer=[]) == []
    assert reward(completions=["a"], answer=[None]) == [None]
