"""Tokens that a model makes itself: what it would say, no special ids, the same on any number of threads."""

from __future__ import annotations

import pytest
import torch
from conftest import make_model

from bntools.core.blockwise import sampled_text
from bntools.core.blockwise.loading import Streamed
from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.model.model import Model
from bntools.core.model.open import open_model

CAUSAL = ["llama", "gemma", "opt", "gpt2", "mixtral"]


@torch.no_grad()
def reference(source, count, window, seed):
    """Pieces sampled one after another from the whole model, by the same uniform numbers."""
    model = source.build(torch.float32)
    allowed = sampled_text.ordinary(source, None)
    drawn = torch.Generator().manual_seed(seed)
    pieces = -(-count * window // sampled_text.PIECE)
    law = 1 / (torch.arange(len(allowed)).double() + 2.7)

    def pick(shares, level):
        return int((shares.double().cumsum(0) <= level * shares.double().sum()).sum())

    found = [[int(allowed[pick(law, u)])] for u in torch.rand(pieces, generator=drawn, dtype=torch.float64)]
    for _ in range(sampled_text.PIECE - 1):
        for piece, u in zip(found, torch.rand(pieces, generator=drawn, dtype=torch.float64), strict=True):
            logits = model(torch.tensor([piece])).logits[0, -1]
            piece.append(int(allowed[pick(logits[allowed].softmax(-1), u)]))
    return torch.tensor(found).flatten()[: count * window].view(count, window)


@pytest.mark.parametrize("kind", CAUSAL)
def test_block_by_block_makes_what_the_whole_model_says(kind, tmp_path):
    make_model(kind, tmp_path)
    source = open_model(str(tmp_path))
    found, expected = sampled_text.made_windows(source, 3, 24, seed=1), reference(source, 3, 24, 1)
    assert found.shape == (3, 24)
    assert float((found == expected).float().mean()) > 0.95, "sums of another order may move a rare choice"


def test_the_same_tokens_on_any_number_of_threads_and_others_for_another_seed():
    source, threads = open_model("default:"), torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(sampled_text.made_windows(source, 2, 64, seed=3))
    torch.set_num_threads(threads)
    assert torch.equal(*found)
    assert not torch.equal(found[0], sampled_text.made_windows(source, 2, 64, seed=4))


def test_the_head_by_pieces_gives_the_same_tokens(monkeypatch):
    source = open_model("default:")
    whole = sampled_text.made_windows(source, 2, 64)
    monkeypatch.setattr(sampled_text, "LOGITS_BYTES", 3 * 4 * int(source.config["vocab_size"]))
    assert torch.equal(whole, sampled_text.made_windows(source, 2, 64))


def test_one_block_at_a_time_is_in_memory(monkeypatch):
    """The whole network is never built, and no two blocks hold weights at once."""
    held, load = [], Streamed.load

    def watched(self, path, but=()):
        load(self, path, but)
        kept = {
            name.split(".")[2]
            for name, value in self.module.named_parameters()
            if name.startswith("model.layers.") and not value.is_meta
        }
        held.append(len(kept))

    monkeypatch.setattr(Model, "build", None)
    monkeypatch.setattr(Streamed, "load", watched)
    sampled_text.made_windows(open_model("default:"), 1, 32)
    assert max(held) == 1


def test_special_ids_are_never_made(tmp_path):
    """An id whose logit is by far the largest is left out all the same where it is special."""
    model = make_model("llama", tmp_path)
    with torch.no_grad():
        model.lm_head.weight[:2] *= 100
    model.save_pretrained(tmp_path)
    source = open_model(str(tmp_path))
    ids = sampled_text.made_windows(source, 4, 64)
    assert set(sampled_text.ordinary(source, None).tolist()) == set(range(2, 96))
    assert int(ids.min()) >= 2


def test_added_tokens_of_a_tokenizer_are_special_and_bos_stands_first_where_it_is_wanted():
    source = open_model("default:")
    tokenizer = sampled_text._tokenizer(source)
    assert tokenizer is not None
    added = set(tokenizer.inner.get_added_tokens_decoder())
    assert added
    ids = sampled_text.made_windows(source, 2, 64)
    bos = tokenizer.window_bos
    body = ids if bos is None else ids[:, 1:]
    assert not added & set(body.flatten().tolist())
    assert bos is None or ids[:, 0].tolist() == [bos] * 2


def test_the_first_of_a_piece_follows_zipfs_law():
    allowed = torch.arange(5, 1005)
    first = sampled_text._first(allowed, 40_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(first, minlength=1005)[5:] / 40_000
    law = 1 / (torch.arange(1000) + 2.7)
    assert float((shares - law / law.sum()).abs().max()) < 0.006  # over four standard errors of the largest


def test_made_text_is_likelier_than_random_ids():
    """In nats a token by the model itself: sampled text has about the model's entropy."""
    source = open_model("default:")
    model, ids = source.build(torch.float32), sampled_text.made_windows(source, 4, 128)
    drawn = torch.Generator().manual_seed(0)
    other = ids.flatten()[torch.randperm(ids.numel(), generator=drawn)].view_as(ids)
    with torch.no_grad():
        losses = [float(model(x, labels=x).loss) for x in (ids, other)]
    assert losses[0] < losses[1] - 1


def test_windows_are_no_longer_than_the_model_has_positions_for(tmp_path):
    make_model("gpt2", tmp_path)
    source = open_model(str(tmp_path))
    assert sampled_text.shape(source, 1024) == (16, 64)
    assert sampled_text.made_windows(source, *sampled_text.shape(source, 128)).shape == (2, 64)


def test_an_encoder_makes_no_tokens(tmp_path):
    make_model("bert", tmp_path)
    source = open_model(str(tmp_path))
    assert not sampled_text.makes(source)
    with pytest.raises(BnError, match="no causal language model") as caught:
        sampled_text.made_windows(source, 1, 16)
    assert caught.value.code == BAD_INPUT


def test_rounds_are_told_as_they_end(tmp_path):
    make_model("llama", tmp_path)
    told = []
    sampled_text.made_windows(open_model(str(tmp_path)), 2, 32, step=told.append)
    assert told == [64 // sampled_text.PIECE] * (sampled_text.PIECE - 1)
