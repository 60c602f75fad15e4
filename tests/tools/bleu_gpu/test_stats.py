"""Every way to hand over sentences gives the statistics of the same lists."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from bntools.core.errors import BnError
from bntools.kernels.ngrams import ngrams
from bntools.tools.bleu_gpu import batch
from bntools.tools.bleu_gpu.scores import bleu_scores
from bntools.tools.bleu_gpu.stats import bleu_stats, matrix_stats, prefix_stats, self_stats

RNG = np.random.default_rng(0)
HYPS = [RNG.integers(1, 5, n).tolist() for n in (0, 1, 7, 20, 33)]
REFS = [
    [RNG.integers(1, 5, n).tolist() for n in lengths] for lengths in ([4, 9], [1], [7, 8, 6], [20], [0, 40])
]
WHOLE = bleu_stats(HYPS, REFS)


def dense(rows: list[list[int]], filler: int, width: int) -> torch.Tensor:
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


def dense_refs(filler: int, dtype: torch.dtype = torch.int64) -> tuple[torch.Tensor, torch.Tensor]:
    """REFS as [B, 3, 41], missing ones of length -1."""
    lengths = torch.full((5, 3), -1)
    ids = torch.full((5, 3, 41), filler, dtype=dtype)
    for i, row in enumerate(REFS):
        for j, ref in enumerate(row):
            lengths[i, j] = len(ref)
            ids[i, j, : len(ref)] = torch.tensor(ref, dtype=dtype)
    return ids, lengths


def test_lists_are_counted_as_the_definition_says() -> None:
    stats = bleu_stats([[1, 2, 3, 4, 5]], [[[1, 2, 3, 9], [3, 4, 5, 9, 9, 9]]])
    assert stats.tolist() == [[5, 4, 5, 4, 2, 0, 5, 4, 3, 2]]
    assert stats.dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_tensors_with_lengths_equal_lists(dtype: torch.dtype) -> None:
    refs, ref_len = dense_refs(7, dtype)
    hyp_len = torch.tensor([len(h) for h in HYPS])
    assert torch.equal(bleu_stats(dense(HYPS, 7, 40).to(dtype), refs, hyp_len, ref_len), WHOLE)


@pytest.mark.parametrize("pad", [0, -100, 2**40])
def test_trailing_pads_are_stripped(pad: int) -> None:
    refs, ref_len = dense_refs(pad)
    got = bleu_stats(dense(HYPS, pad, 50), refs, None, torch.where(ref_len < 0, -1, 41), pad_id=pad)
    assert torch.equal(got, WHOLE)


def test_inner_pads_are_tokens() -> None:
    assert bleu_stats([[1, 0, 2, 0, 0]], [[[1, 0, 2]]], pad_id=0).tolist() == [[3, 3, 3, 2, 1, 0, 3, 2, 1, 0]]


def test_sentences_end_before_the_first_eos() -> None:
    hyps = [[*h, 9, 1, 1, 9] for h in HYPS]
    refs = [[[*r, 9, 2] for r in row] for row in REFS]
    assert torch.equal(bleu_stats(hyps, refs, eos_id=9), WHOLE)


def test_eos_that_is_also_the_pad_ends_a_sentence_once() -> None:
    assert bleu_stats([[1, 2, 9, 9]], [[[1, 2, 9, 3]]], pad_id=9, eos_id=9)[0, :4].tolist() == [2, 2, 2, 1]


def test_nested_tensors_equal_lists() -> None:
    hyps, single = (
        [torch.tensor(h) for h in HYPS[1:]],
        [torch.tensor(row[0], dtype=torch.long) for row in REFS[1:]],
    )
    want = bleu_stats(HYPS[1:], [row[:1] for row in REFS[1:]])
    for layout in (torch.strided, torch.jagged):
        hyp = torch.nested.nested_tensor(hyps, layout=layout)
        refs = torch.nested.nested_tensor(single, layout=layout)
        assert torch.equal(bleu_stats(hyp, refs), want)


def test_one_reference_may_leave_out_its_dimension() -> None:
    hyp, refs = torch.randint(0, 4, (6, 20)), torch.randint(0, 4, (6, 25))
    lengths = torch.arange(6) + 10
    assert torch.equal(bleu_stats(hyp, refs), bleu_stats(hyp, refs[:, None]))
    assert torch.equal(
        bleu_stats(hyp, refs, None, lengths), bleu_stats(hyp, refs[:, None], None, lengths[:, None])
    )


def test_views_are_read_and_left_as_they_are() -> None:
    base = torch.randint(0, 4, (30, 8))
    before = base.clone()
    assert torch.equal(
        bleu_stats(base.T, base.T[:, :20]), bleu_stats(base.T.tolist(), base.T[:, None, :20].tolist())
    )
    assert torch.equal(base, before)


def test_an_empty_batch_has_no_rows() -> None:
    assert bleu_stats([], []).shape == (0, 10)
    assert bleu_stats(torch.zeros(0, 5, dtype=torch.long), torch.zeros(0, 2, 5, dtype=torch.long)).shape == (
        0,
        10,
    )


@pytest.mark.parametrize(
    ("hyp", "refs", "options"),
    [
        ([[1.5]], [[[1]]], {}),
        ([["a"]], [[["a"]]], {}),
        ([[1]], [[1]], {}),
        ([[1]], [[]], {}),
        ([[1], [2]], [[[1]]], {}),
        ([[2**70]], [[[1]]], {}),
        (torch.zeros(3, dtype=torch.long), torch.zeros(3, 3, dtype=torch.long), {}),
        (torch.zeros(2, 3), torch.zeros(2, 3), {}),
        ([[1]], [[[1]]], {"hyp_len": [2]}),
        ([[1]], [[[1]]], {"hyp_len": [1, 1]}),
        ([[1]], [[[1]]], {"max_n": 0}),
    ],
)
def test_inputs_that_do_not_fit_are_refused(hyp: object, refs: object, options: dict[str, object]) -> None:
    with pytest.raises(BnError) as caught:
        bleu_stats(hyp, refs, **options)
    assert caught.value.hint


def test_masked_ids_are_no_tokens_wherever_they_stand() -> None:
    hyp, refs = torch.randint(0, 4, (6, 20)), torch.randint(0, 4, (6, 2, 15))
    mask, ref_mask = torch.rand(6, 20) < 0.7, torch.rand(6, 2, 15) < 0.7
    want = bleu_stats(
        [h[m].tolist() for h, m in zip(hyp, mask, strict=True)],
        [[r[m].tolist() for r, m in zip(*row, strict=True)] for row in zip(refs, ref_mask, strict=True)],
    )
    assert torch.equal(bleu_stats(hyp, refs, hyp_mask=mask, ref_mask=ref_mask.long()), want)


def test_flat_ids_with_cumulative_lengths_equal_lists() -> None:
    refs = [ref for row in REFS for ref in row]
    flat, flat_refs = (torch.tensor([i for row in rows for i in row]) for rows in (HYPS, refs))
    hyp_cu, ref_cu, ref_rows = (
        torch.tensor([0, *map(len, rows)]).cumsum(0).to(torch.int32) for rows in (HYPS, refs, REFS)
    )
    given = {"hyp_cu": hyp_cu, "ref_cu": ref_cu, "ref_rows": ref_rows}
    assert torch.equal(bleu_stats(flat, flat_refs, **given), WHOLE)


def test_a_group_of_hypotheses_shares_its_references() -> None:
    hyp, refs = torch.randint(0, 4, (3, 5, 20)), torch.randint(0, 4, (3, 2, 15))
    found = bleu_stats(hyp, refs)
    assert found.shape == (3, 5, 10)
    for g in range(5):
        assert torch.equal(found[:, g], bleu_stats(hyp[:, g], refs))
    assert bleu_scores(found).shape == (3, 5)


def test_the_last_prefix_is_the_whole_and_the_others_are_sentences_cut_short() -> None:
    found = prefix_stats(HYPS, REFS)
    for t in range(1, 34):
        cut = [h[:t] for h in HYPS]
        assert torch.equal(found[:, t - 1], bleu_stats(cut, REFS))
    assert torch.equal(found[:, -1], WHOLE)


def test_self_bleu_and_the_matrix_are_those_of_single_calls() -> None:
    samples = [RNG.integers(1, 4, n).tolist() for n in (9, 12, 3, 0, 20, 21)]
    others = [[samples[j] for j in range(i // 3 * 3, i // 3 * 3 + 3) if j != i] for i in range(6)]
    assert torch.equal(self_stats(samples, 3), bleu_stats(samples, others))
    matrix = matrix_stats(samples, 3)
    for i, j in ((0, 1), (2, 0), (5, 4), (3, 3)):
        assert torch.equal(matrix[i // 3, i % 3, j % 3], bleu_stats([samples[i]], [[samples[j]]])[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_counting_takes_little_memory_whatever_the_batch(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense tables of the same batch take gigabytes; the tokens themselves are 52 MB."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    hyp, refs = torch.randint(0, 999, (1280, 1024)), torch.randint(0, 999, (1280, 4, 1024))
    bleu_stats(hyp[:2], refs[:2])  # compiled
    ctypes.CDLL(None).malloc_trim(0)  # what is freed but still resident would hide the growth
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    bleu_stats(hyp, refs)
    assert resident("VmHWM") - before < 32e6


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def test_a_device_cuts_sentences_like_the_cpu() -> None:
    hyp = torch.randint(0, 4, (40, 9))
    whole = batch.sentences(batch.Side("hyp", hyp))
    for eos, pad in ((3, None), (None, 0), (3, 0), (2, 2)):
        assert torch.equal(ngrams._cut_on_device(whole, eos, pad).length, ngrams.cut(whole, eos, pad).length)


def test_scores_of_a_device_are_not_read_back() -> None:
    """Tensors on the meta device hold no values: reading one raises."""
    given = {"hyp_len": torch.ones(4, device="meta", dtype=torch.long), "eos_id": 1, "pad_id": 0}
    hyp, refs = (
        torch.zeros(4, 9, dtype=torch.long, device="meta"),
        torch.zeros(4, 2, 9, dtype=torch.long, device="meta"),
    )
    stats = bleu_stats(hyp, refs, max_n=5, **given)
    assert stats.shape == (4, 12)
    for method in range(8):
        assert bleu_scores(stats, smoothing=f"method{method}", auto_reweigh=True).shape == (4,)
    for smoothing in ("exp", "floor", "add-k", "none"):
        assert bleu_scores(stats, "sacrebleu", smoothing).shape == (4,)
