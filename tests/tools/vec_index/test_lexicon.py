"""Vectors said in words: sums over words are exact, training thins the lists, and what is lost is told."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array

from bntools import cli
from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.datasets.activations import write_activations
from bntools.core.errors import BnError
from bntools.core.methods.vector_index import lexicon
from bntools.tools.vec_index.lexicon import LexiconSettings, build_lexicon

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-vec-index.1"


@contextlib.contextmanager
def silent(what, total):
    yield lambda count: None


@pytest.fixture(scope="module")
def planted():
    """1,500 texts of 4 of 120 words each, queries of 2 words, and the words."""
    random = np.random.default_rng(0)
    words = random.normal(size=(120, 24)).astype("f")

    def texts(count, size):
        chosen = np.array([random.choice(120, size, replace=False) for _ in range(count)])
        rows = words[chosen].sum(1) + 0.3 * random.normal(size=(count, 24))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f")

    return texts(1500, 4), texts(600, 2), texts(100, 2), words


@pytest.fixture(scope="module")
def built(planted):
    base, learn, _, words = planted
    settings = LexiconSettings("cos", kept=8, kept_queries=6, steps=60)
    return build_lexicon(base, learn, words, settings, silent)


def test_scores_are_sums_over_shared_words_of_the_impacts(planted, built):
    base, _, test, _ = planted
    sparse = [
        csr_array((whole.ravel().astype(np.int64), (np.repeat(np.arange(len(x)), words.shape[1]), words.ravel())),
                  shape=(len(x), 120))
        for x, (words, whole) in (
            (rows, lexicon.impacts(head, rows / np.linalg.norm(rows, axis=1, keepdims=True)))
            for head, rows in ((built.queries, test), (built.base, base))
        )
    ]  # fmt: skip
    sums = (sparse[0] @ sparse[1].T).toarray()
    hits = lexicon.search(built, test, 7)
    assert (hits.rows == np.argsort(-sums, axis=1, kind="stable")[:, :7]).all()
    unit = built.queries.step * built.base.step
    assert np.allclose(hits.scores, np.take_along_axis(sums, hits.rows, 1) * unit)
    counted = ((sparse[0] > 0).astype(np.int64) @ (sparse[1] > 0).astype(np.int64).sum(0)).mean() / 1500
    assert lexicon.touched(built, test) == pytest.approx(counted)


def test_weights_are_the_logarithm_of_positive_logits(planted):
    head = lexicon.WordHead(np.eye(3, dtype="f"), np.array([0, -1, 5], "f"), 2, 0.1)
    words, weights = lexicon.weigh(head, np.array([[2, 0.5, -1]], "f"))
    assert words.tolist() == [[2, 0]]
    assert np.allclose(weights, [[np.log(5), np.log(3)]])
    assert lexicon.impacts(head, np.array([[1e9, 0, -9]], "f"))[1][0, 0] == 207  # log(1e9 + 1) / 0.1


def test_the_report_tells_the_loss_and_training_beats_the_words_own_vectors_at_fewer_or_as_many_postings(
    built,
):
    facts = built.facts
    assert facts["lost_against_dense"] == pytest.approx(1 - facts["recall_heldout"]["mean"])
    assert facts["recall_heldout"]["mean"] > facts["untrained"]["recall"] - 2 * facts["recall_heldout"]["se"]
    assert 0 < facts["postings_per_query"] < 8 * 6 / 2
    page = PAGE.read_text()
    assert all(re.search(rf"\b{key}\b", page) for key in facts), facts.keys()


def test_pressing_down_common_words_thins_the_lists(planted):
    base, learn, _, words = planted
    cost = [
        build_lexicon(base, learn, words, LexiconSettings("cos", 8, 6, flops, 60), silent).facts[
            "postings_per_query"
        ]
        for flops in (0.0, 1.0)
    ]
    assert cost[1] < cost[0]


def test_a_lexicon_goes_through_a_file_and_the_same_seed_gives_the_same_bytes(planted, built, tmp_path):
    base, learn, test, words = planted
    names = tuple(f"word {i}" for i in range(120))
    with Writer(str(tmp_path / "x.lex"), lexicon.KIND) as out:
        lexicon.write(lexicon.named(built, None, names), out)
    with open_path(tmp_path / "x.lex") as file:
        back = lexicon.read(file)
    assert back.words == names
    assert (lexicon.search(back, test, 9).rows == lexicon.search(built, test, 9).rows).all()
    again = build_lexicon(
        base, learn, words, LexiconSettings("cos", kept=8, kept_queries=6, steps=60), silent
    )
    assert (again.lists.data == built.lists.data).all()
    held = load_file(tmp_path / "x.lex")
    with safe_open(tmp_path / "x.lex", "pt") as file:
        metadata = file.metadata()
    for name, change in (
        ("postings", lambda t: t | 128),
        ("postings", lambda t: t[:-1]),
        ("start", lambda t: t + 1),
        ("head.base", lambda t: t[1:]),
        ("bias.queries", lambda t: t * float("nan")),
    ):
        save_file({**held, name: change(held[name]).contiguous()}, tmp_path / "bad.lex", metadata)
        with open_path(tmp_path / "bad.lex") as file, pytest.raises(BnError) as refused:
            lexicon.read(file)
        assert refused.value.code == 3


def test_by_command_a_lexicon_is_built_searched_scored_and_told(planted, tmp_path, capfd):
    base, learn, test, words = planted
    for name, rows in (("base", base), ("learn", learn), ("test", test)):
        np.save(tmp_path / f"{name}.npy", rows)
    write_activations(str(tmp_path / "words.safetensors"), words, {"names": [f"w{i}" for i in range(120)]})

    def call(*line):
        code = cli.run([str(word) for word in line])
        return code, *capfd.readouterr()

    lex, queries = tmp_path / "x.lex", ("--queries", tmp_path / "learn.npy")
    build = ("vec-index", tmp_path / "base.npy", "--method", "lexicon", "-o", lex)
    words_of = ("--vocabulary", tmp_path / "words.safetensors")
    code, _, error = call(*build, *queries, *words_of, "--metric", "cos", "--kept", 8, "--steps", 20)
    assert code == 0, error
    assert "lost" in error
    with open_path(lex) as file:
        assert file.files["vocabulary.txt"].decode().split() == [f"w{i}" for i in range(120)]
    lines = call("vec-index", lex, "--search", tmp_path / "test.npy", "-k", 4)[1].splitlines()
    assert len(lines) == 100
    assert len(json.loads(lines[7])["ids"]) == 4
    score = ("eval", lex, "--data", tmp_path / "test.npy", "--data", tmp_path / "base.npy", "--json")
    code, out, error = call(*score)
    assert code == 0, error
    report = json.loads(out)
    assert report["lost_against_dense"] == pytest.approx(1 - report["recall"]["mean"])
    page = PAGE.read_text()
    assert all(re.search(rf"\b{key}\b", page) for key in report), report.keys()
    assert call(*score, "--set", "gate_recall=0.9999")[0] == 4
    assert json.loads(call("info", lex, "--json")[1])["facts"]["vocabulary"] == 120
    assert call(*build, *queries)[0] == 2
    assert call(*build, *words_of)[0] == 2
    assert call(*build, *queries, *words_of, "--bytes", 20)[0] == 2
    assert call(*build, *queries, *words_of, "--metric", "l2", "--force")[0] == 2
    assert call("vec-index", lex, "--add", tmp_path / "base.npy", "-o", tmp_path / "y.lex")[0] == 3
