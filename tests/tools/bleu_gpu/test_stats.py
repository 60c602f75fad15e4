"""Every way to hand over sentences gives the statistics of the same lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.core.errors import BnError
from bntools.tools.bleu_gpu.stats import bleu_stats

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
