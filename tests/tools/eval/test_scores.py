"""The numbers of eval against references written from the definitions, on the embedded model."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re

import pytest
import torch
from conftest import make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.model.open import open_model
from bntools.core.text.documents import default_text
from bntools.core.text.tokens import Tokenizer, open_tokenizer
from bntools.tools.eval import choice, encoder
from bntools.tools.eval.evaluate import Settings, evaluate, find_reference
from bntools.tools.eval.text import divergence, perplexity
from bntools.tools.eval.text import head as heads
from bntools.tools.eval.text.protocols import PROTOCOLS, gptq, lmeval


@pytest.fixture(scope="module")
def tiny():
    """The embedded model as transformers knows it, and its tokenizer."""
    opened = open_model("default:")
    return opened.build(torch.float32), open_tokenizer(opened.files, opened.config, "default:")


TEXT = default_text("eval")[:6000]


@torch.no_grad()
def token_losses(model, ids):
    """-log p of each token of a list but the first, float64, from full logits."""
    logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [-float(logits[i, token]) for i, token in enumerate(ids[1:])]


def reference_gptq(model, tokenizer, length):
    """GPTQ's loop: windows of the joined text, mean loss times length, over n * length."""
    ids = tokenizer.inner.encode(TEXT).ids
    count = len(ids) // length
    total = 0.0
    for i in range(count):
        losses = token_losses(model, ids[i * length : (i + 1) * length])
        total += sum(losses) / len(losses) * length
    return math.exp(total / (count * length)), count * (length - 1)


def reference_lmeval(model, tokenizer, length):
    """Every token once: the first given BOS, the rest given the token before the window's fresh part."""
    ids = tokenizer.inner.encode(TEXT, add_special_tokens=False).ids
    losses = token_losses(model, [tokenizer.bos, *ids[:length]])
    position = length
    while position < len(ids):
        end = min(position + length, len(ids))
        window = ids[end - length - 1 : end]
        losses += token_losses(model, window)[-(end - position) :]
        position = end
    words = len(re.split(r"\s+", TEXT))
    return math.exp(sum(losses) / len(losses)), len(losses), math.exp(sum(losses) / words)


def reference_llamacpp(model, tokenizer, n_ctx):
    """perplexity.cpp: BOS over the first token of a chunk, targets first + 1 .. n_ctx - 1."""
    ids = tokenizer.inner.encode(TEXT).ids
    first, losses = n_ctx // 2, []
    for start in range(0, len(ids) // n_ctx * n_ctx, n_ctx):
        chunk = [tokenizer.bos, *ids[start + 1 : start + n_ctx]]
        losses += token_losses(model, chunk)[first:]
    return math.exp(sum(losses) / len(losses)), len(losses)


def scored(tiny, protocol, length):
    model, tokenizer = tiny
    corpus = PROTOCOLS[protocol]([TEXT], tokenizer, length, None)
    losses = perplexity.score(model, heads.split(model), corpus)
    return perplexity.report(losses, corpus)


@pytest.mark.parametrize("length", [64, 100])
@pytest.mark.parametrize(
    ("protocol", "reference"),
    [("gptq", reference_gptq), ("lmeval", reference_lmeval), ("llamacpp", reference_llamacpp)],
)
def test_each_protocol_is_its_definition(tiny, protocol, reference, length):
    expected, tokens, *words = reference(*tiny, length)
    report = scored(tiny, protocol, length)
    assert report["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert report["tokens"] == tokens
    if words:
        assert report["word_perplexity"] == pytest.approx(words[0], rel=1e-5)
        size = len(TEXT.encode())
        assert report["bits_per_byte"] == pytest.approx(report["nll"] * tokens / size / math.log(2), rel=1e-9)


class Counting:
    """A tokenizer whose text is its number of tokens."""

    def encode(self, text, add_special_tokens=True):
        return type("Encoding", (), {"ids": list(range(10, 10 + int(text)))})


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(2, 50))
def test_lmeval_scores_every_token_exactly_once_and_never_feeds_more_than_the_window(count, length):
    corpus = lmeval([str(count)], Tokenizer(Counting(), 1, None, False), length, None)
    seen = [token for window in corpus.windows for token in window.ids[window.first :]]
    assert seen == list(range(10, 10 + count))
    assert all(len(window.ids) - 1 <= length for window in corpus.windows)


@settings(deadline=None)
@given(st.integers(16, 300), st.integers(2, 50), st.integers(1, 400))
def test_a_limit_on_tokens_is_kept(count, length, limit):
    corpus = gptq([str(count)], Tokenizer(Counting(), None, None, False), length, limit)
    assert corpus.tokens <= max(limit, corpus.windows[0].scored)


def test_a_text_too_short_to_score_is_refused(tiny):
    for protocol in ("gptq", "llamacpp"):
        with pytest.raises(BnError) as caught:
            PROTOCOLS[protocol](["a few"], tiny[1], 64, None)
        assert caught.value.code == BAD_INPUT


def noisy(model, size):
    """A copy with Gaussian noise on every matrix."""
    import copy

    torch.manual_seed(0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * parameter.std() * size)
    return other


@torch.no_grad()
def test_divergence_is_the_full_vocabulary_kl(tiny, monkeypatch):
    model, tokenizer = tiny
    other = noisy(model, 0.05)
    corpus = gptq([TEXT], tokenizer, 128, 600)
    kept = divergence.record(model, heads.split(model), corpus)
    found = divergence.compare(other, heads.split(other), kept, corpus)
    kl, agree = [], []
    for window in corpus.windows:
        p, q = (m(torch.tensor([window.ids])).logits[0, :-1].double().log_softmax(-1) for m in (model, other))
        kl += (p.exp() * (p - q)).sum(-1).tolist()
        agree += (p.argmax(-1) == q.argmax(-1)).tolist()
    report = divergence.report(found)
    assert report["kl"]["mean"] == pytest.approx(sum(kl) / len(kl), rel=0.01)  # states are kept in float16
    assert report["top1"] == pytest.approx(sum(agree) / len(agree), abs=0.01)
    monkeypatch.setattr(heads, "CHUNK_BYTES", 4096 * 7)
    again = divergence.compare(other, heads.split(other), kept, corpus)
    assert torch.allclose(again.kl, found.kl, atol=1e-5)


def test_a_model_does_not_diverge_from_itself(tiny):
    model, tokenizer = tiny
    corpus = gptq([TEXT], tokenizer, 128, 1000)
    head = heads.split(model)
    report = divergence.report(
        divergence.compare(model, head, divergence.record(model, head, corpus), corpus)
    )
    assert abs(report["kl"]["mean"]) < 1e-5
    assert report["top1"] > 0.995
    assert report["ppl_ratio"]["value"] == pytest.approx(1, abs=1e-3)


def test_the_standard_error_is_that_of_resampled_windows():
    torch.manual_seed(0)
    sizes = [50] * 40
    values = torch.randn(2000) + torch.randn(40).repeat_interleave(50)  # windows share a level
    parts = torch.stack([part.mean() for part in values.split(sizes)])
    means = [float(parts[torch.randint(40, (40,))].mean()) for _ in range(4000)]
    assert perplexity.mean_error(values, sizes) == pytest.approx(float(torch.tensor(means).std()), rel=0.1)


ODD_HEADS = {
    "gemma2": {
        "head_dim": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "final_logit_softcapping": 3.0,
    },
    "cohere": {"num_key_value_heads": 2, "intermediate_size": 48, "logit_scale": 0.25},
    "granite": {"num_key_value_heads": 2, "intermediate_size": 48, "logits_scaling": 4.0},
}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "phi", "mixtral", *ODD_HEADS])
@torch.no_grad()
def test_the_head_alone_gives_the_models_logits(kind, tmp_path, monkeypatch):
    import conftest

    if kind in ODD_HEADS:
        monkeypatch.setitem(conftest.ARCHITECTURES, kind, {**conftest.SMALL, **ODD_HEADS[kind]})
    model = make_model(kind, tmp_path)
    ids = torch.randint(2, 90, (1, 9))
    found = heads.split(model).logits(heads.hidden_states(model, ids)[0])
    assert torch.allclose(found, model(ids).logits[0], atol=1e-4)


@torch.no_grad()
def test_a_choice_is_scored_by_the_log_probability_of_its_tokens(tiny, tmp_path):
    model, tokenizer = tiny
    path = tmp_path / "quiz.jsonl"
    rows = [
        {
            "question": "Who was swallowed by a great fish?",
            "choices": ["Jonah", "Naomi", "Ahab"],
            "answer": 0,
        },
        {"prompt": "And the LORD said unto", "choices": ["Moses", "the whale"], "answer": "Moses"},
        {"prompt": "In the beginning God created the", "choices": ["heaven", "harpoon"], "answer": "A"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    questions = choice.read_tasks(str(path))
    assert [q.answer for q in questions] == [0, 0, 0]
    answers = list(choice.answer(model, heads.split(model), tokenizer, questions, 256))
    for question, found in zip(questions, answers, strict=True):
        for text, value in zip(question.choices, found.logprobs, strict=True):
            ids = tokenizer.inner.encode(question.prompt + text).ids
            start = len(tokenizer.inner.encode(question.prompt).ids)
            assert value == pytest.approx(-sum(token_losses(model, ids)[start - 1 :]), abs=1e-3)
    report = choice.report(answers)
    assert report["questions"] == 3
    assert report["chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"question": "x"}', '{"question": "x", "choices": ["a"], "answer": 0}',
             '{"question": "x", "choices": ["a", "b"], "answer": 2}',
             '{"question": "x", "choices": ["a", "b"], "answer": true}'],
)  # fmt: skip
def test_a_damaged_question_is_named_by_its_line(line, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "x", "choices": ["a", "b"], "answer": 1}\n' + line)
    with pytest.raises(BnError, match="line 2") as caught:
        choice.read_tasks(str(path))
    assert caught.value.code == BAD_INPUT


def test_mmlu_is_asked_as_its_authors_ask(tmp_path):
    for part, rows in (("dev", 6), ("test", 2)):
        (tmp_path / part).mkdir()
        with open(tmp_path / part / f"high_school_x_{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows([f"q{i}", "w", "x", "y", "z", "C"] for i in range(rows))
    questions = choice.read_tasks(str(tmp_path))
    assert len(questions) == 2
    assert questions[0].answer == 2
    assert questions[0].choices == [" A", " B", " C", " D"]
    header = "The following are multiple choice questions (with answers) about high school x."
    start = f"{header}\n\nq0\nA. w\nB. x\nC. y\nD. z\nAnswer: C\n\nq1"
    assert questions[1].prompt.startswith(start)
    assert questions[1].prompt.endswith("Answer: C\n\nq1\nA. w\nB. x\nC. y\nD. z\nAnswer:")
    assert questions[1].prompt.count("Answer: C") == 5


def test_the_cosine_of_an_encoder_falls_with_noise(tmp_path):
    model = make_model("bert", tmp_path)
    lines = [torch.randint(2, 90, (12,)).tolist() for _ in range(20)]
    clean = encoder.embed(model, lines)
    means = [
        encoder.report(encoder.embed(noisy(model, size), lines), clean)["cosine"]["mean"]
        for size in (0, 0.1, 0.5)
    ]
    assert means[0] == pytest.approx(1, abs=1e-5)
    assert means[0] > means[1] > means[2]


def test_the_reference_is_found_by_history_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = open_model("default:")
    model.history = [{"tool": "quantize", "inputs": [{"label": "default:", "bytes": 1, "sha256": ""}]}]
    assert find_reference(model) is None, "a file of another size is not the original"
    model.history[0]["inputs"][0]["bytes"] = model.store.nbytes()
    assert find_reference(model) is None, "nor is one of another content"
    model.history[0]["inputs"][0]["sha256"] = model.store.sha256()
    reference = find_reference(model)
    assert reference is not None
    runs = []

    @contextlib.contextmanager
    def progress(what, total):
        runs.append(what)
        yield lambda count: None

    for text in (TEXT, TEXT, TEXT[::-1]):
        evaluate(model, reference, [text], None, Settings(tokens=300), progress)
    assert runs == ["running the reference", "scoring", "scoring", "running the reference", "scoring"]


def test_the_embedded_model_knows_its_language(tiny):
    """An untrained one has a perplexity of about its vocabulary, 1024, and writes no words."""
    model, tokenizer = tiny
    assert scored(tiny, "gptq", 256)["perplexity"] < 60
    torch.manual_seed(0)
    start = torch.tensor([tokenizer.inner.encode("And the captain").ids])
    text = tokenizer.inner.decode(
        model.generate(start, max_new_tokens=200, do_sample=True, temperature=0.8)[0].tolist()
    )
    known = set(re.findall(r"[a-z]+", (default_text("eval") + default_text("calib")).lower()))
    words = re.findall(r"[a-z]+", text.lower())
    assert sum(word in known for word in words) >= 0.6 * len(words)
    assert len(set(words)) > 20


def test_the_texts_share_no_line():
    lines = [
        {line.strip() for line in default_text(kind).splitlines() if len(line.split()) >= 8}
        for kind in ("eval", "calib")
    ]
    assert len(lines[0]) > 50
    assert not lines[0] & lines[1]


def test_the_package_stays_small():
    from bntools.core.text.documents import tiny_model_dir

    assert sum(path.stat().st_size for path in tiny_model_dir().iterdir()) <= 3_000_000
