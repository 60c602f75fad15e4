"""ZipVL's prefill among important tokens: against the paper's algorithm with masks, and what a plan with it says."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from bntools import cli
from bntools.core.methods.kv import prefix, score, watch
from bntools.core.methods.kv.attention.sparse_prefill import SparsePrefill
from bntools.core.methods.kv.cache import full_layers
from bntools.core.model.open import open_model
from bntools.core.text.documents import default_text
from bntools.core.text.tokens import open_tokenizer
from bntools.tools.eval import cached
from bntools.tools.kv_compress.run import make_plan
from bntools.tools.kv_compress.settings import Settings

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-kv-compress.1"
SMALL = ("--context", "128", "--calib-tokens", "256")


@pytest.fixture(scope="module")
def model():
    return open_model("default:").build(torch.float32)


@pytest.fixture(scope="module")
def ids():
    source = open_model("default:")
    tokenizer = open_tokenizer(source.files, source.config, source.label)
    return tokenizer.ids(default_text("eval")[:3000])


@torch.no_grad()
def by_hand(model, ids, tau):
    """Logits [n, vocabulary] and the important tokens by layer, masks in place of gathered rows, all rows as probes."""
    inner, n, chosen = model.model, len(ids), []
    x, causal = inner.embed_tokens(ids[None]), torch.ones(n, n, dtype=torch.bool).tril()
    cos, sin = inner.rotary_emb(x, torch.arange(n)[None])
    for layer in inner.layers:
        own, h = layer.self_attn, layer.input_layernorm(x)
        q, k, v = (f(h).view(1, n, -1, 32).transpose(1, 2) for f in (own.q_proj, own.k_proj, own.v_proj))
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        logits = q @ k.mT * 32**-0.5
        total = logits.masked_fill(~causal, -torch.inf).softmax(-1).sum((0, 1, 2))
        p = int((total.sort(descending=True).values.cumsum(0) < tau * total.sum()).sum()) + 1
        important = torch.zeros(n, dtype=torch.bool)
        important[(total / torch.arange(n, 0, -1)).topk(p).indices] = True
        seen = logits.masked_fill(~(causal & important), -torch.inf).softmax(-1)
        out = torch.where(important[:, None], seen @ v, 0.0)
        x = x + own.o_proj(out.transpose(1, 2).reshape(1, n, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        chosen.append(important)
    return model.lm_head(inner.norm(x))[0], chosen


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tau", [0.6, 0.9, 0.975])
def test_attention_among_important_tokens_is_the_papers(model, ids, tau, attention):
    row = torch.tensor(ids[:120])  # at most 128: every row is a probe
    expected, chosen = by_hand(model, row, tau)
    prefill = SparsePrefill(tau, full_layers(model))
    before = model.config._attn_implementation
    model.set_attn_implementation(attention)
    try:
        with torch.no_grad(), watch.watching(model, replace=prefill):
            logits = model(row[None]).logits[0]
    finally:
        model.set_attn_implementation(before)
    assert 0 < sum(prefill.kept()) < 4
    assert all(torch.equal(prefill.important[layer], chosen[layer]) for layer in range(4))
    assert torch.allclose(logits, expected, atol=2e-4)


def test_a_threshold_of_one_is_the_dense_prefill(model, ids):
    row, planned = torch.tensor(ids[:200]), full_layers(model)
    dense = prefix.read_prefix(model, row, planned)
    prefill = SparsePrefill(1.0, planned)
    sparse = prefix.read_prefix(model, row, planned, replace=prefill)
    for layer in planned:
        assert all(torch.equal(a, b) for a, b in zip(dense.kv[layer], sparse.kv[layer], strict=True))
    assert prefill.kept() == [1.0] * 4
    assert prefill.products() == 1


def test_more_of_the_attention_takes_more_tokens_and_products(model, ids):
    row, planned = torch.tensor(ids[:200]), full_layers(model)
    shares = []  # of the first layer, whose queries do not change
    for tau in (0.5, 0.9, 0.975):
        prefill = SparsePrefill(tau, planned)
        prefix.read_prefix(model, row, planned, replace=prefill)
        shares.append((prefill.kept()[0], prefill.products()))
        assert prefill.products() < sum(prefill.kept()) / 4
    assert shares == sorted(shares)


def test_the_losses_of_prefill_and_codes_are_told_apart(model, ids):
    """With a threshold of 1 all of it is the codes'; without codes' loss the sum is not less than either."""
    windows = score.windows_of(ids, 128, 256)
    reports = {}
    for tau in (0.8, 1.0):
        plan = make_plan(model, ids, Settings(method="zipvl", tau=tau, sparse_prefill=True, context=128,
                                              calib_tokens=128))  # fmt: skip
        reports[tau] = score.score(model, plan, windows, baselines=())
    dense = reports[1.0]
    assert dense["sparse_prefill"]["prefill"]["kl"] < 1e-4  # keys and values of float16
    assert dense["kl"] == dense["sparse_prefill"]["codes"]["kl"] > 1e-4
    sparse = reports[0.8]["sparse_prefill"]
    plain = make_plan(model, ids, Settings(method="zipvl", tau=0.8))
    assert score.score(model, plain, windows, baselines=())["kl"] == pytest.approx(sparse["codes"]["kl"])
    assert sparse["prefill"]["kl"] > 1e-3
    assert sparse["codes"]["kl"] != reports[0.8]["kl"] != sparse["prefill"]["kl"]


def test_a_plan_says_what_its_prefill_costs_and_eval_says_it_again(tmp_path, capsys):
    path = tmp_path / "plan.json"
    words = ["kv-compress", "default:", "--method", "zipvl", "--sparse-prefill", *SMALL, "-o", str(path)]
    assert cli.run(words) == 0
    assert "sparse prefill alone" in capsys.readouterr().err
    facts = json.loads(path.read_text())
    assert facts["predicted_kl"] > 0
    words = ["eval", "default:", "--kv", str(path), "--window", "128", "--tokens", "128", "--json"]
    assert cli.run(words) == 0
    report = json.loads(capsys.readouterr().out)
    page = PAGE.read_text(encoding="utf-8")
    for found in (facts["sparse_prefill"], report["sparse_prefill"]):
        assert set(found) == {"prefill", "codes", "important", "products"}
        assert found["prefill"]["kl"] >= 0
        assert all(re.search(rf"\b{key}\b", page) for key in found)
    console = Console(file=io.StringIO(), width=100)
    cached.draw(console, report)
    assert "its sparse prefill alone" in console.file.getvalue()
