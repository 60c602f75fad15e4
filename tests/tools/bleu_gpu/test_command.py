"""bleu-gpu as used in a shell: lines in, lines out, and what happens to a bad one."""

from __future__ import annotations

import io
import json
import random
import sys
from types import SimpleNamespace

import pytest
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from sacrebleu.metrics import BLEU

from bntools import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `bntools ...` in this process, up to its exit code."""

    def call(*words, data=b""):
        given = ["bntools", *map(str, words)]
        monkeypatch.setattr(sys, "argv", given)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = cli.run(given[1:])
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return call


def pairs(count, seed=0):
    source = random.Random(seed)

    def ids():
        return [source.randrange(6) for _ in range(source.randrange(4, 20))]

    return [{"hyp": ids(), "refs": [ids() for _ in range(source.randrange(1, 4))]} for _ in range(count)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def scores(done):
    return [json.loads(line)["bleu"] for line in done.stdout.splitlines()]


def test_each_line_gets_the_score_nltk_gives_it(run):
    rows = pairs(50)
    done = run("bleu-gpu", "--smoothing", "1", data=lines(rows))
    assert done.returncode == 0, done.stderr
    smooth = SmoothingFunction().method1
    expected = [sentence_bleu(row["refs"], row["hyp"], smoothing_function=smooth) for row in rows]
    assert scores(done) == pytest.approx(expected, abs=1e-12)
    assert "smooth:method1" in done.stderr


def test_statistics_through_a_pipe_give_the_corpus_score_of_the_pairs(run, tmp_path):
    rows = pairs(60)
    (tmp_path / "p.jsonl").write_bytes(lines(rows))
    stats = run("bleu-gpu", tmp_path / "p.jsonl", "--stats")
    for mode in ("nltk", "sacrebleu"):
        done = run("bleu-gpu", "--from-stats", "--corpus", "--mode", mode, data=stats.stdout.encode())
        report = json.loads(done.stdout)
        if mode == "nltk":
            expected = corpus_bleu([row["refs"] for row in rows], [row["hyp"] for row in rows])
        else:
            width = max(len(row["refs"]) for row in rows)
            text = [[" ".join(map(str, ref)) for ref in row["refs"]] for row in rows]
            streams = [[refs[i] if i < len(refs) else None for refs in text] for i in range(width)]
            hyps = [" ".join(map(str, row["hyp"])) for row in rows]
            expected = BLEU(tokenize="none").corpus_score(hyps, streams).score / 100
        assert report["bleu"] == pytest.approx(expected, abs=1e-12)
        assert report["lines"] == 60


BAD = [
    (b"nonsense", "not JSON"), (b'{"hyp": [1]}', "refs"), (b'{"hyp": [1.5], "refs": [[1]]}', "whole numbers"),
    (b'{"hyp": [true], "refs": [[1]]}', "whole numbers"), (b'{"hyp": [1], "refs": []}', "no reference"),
    (b'{"hyp": [1], "refs": [1]}', "whole numbers"), (b'{"hyp": [99999999999999999999], "refs": [[1]]}', "64 bits"),
    (b"\xff\xfe", "JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_named_and_what_came_before_is_kept(run, line, reason):
    good = lines(pairs(3))
    done = run("bleu-gpu", data=good + line + b"\n" + good)
    assert done.returncode == 3
    assert "line 4" in done.stderr
    assert reason in done.stderr
    assert len(scores(done)) == 3


def test_all_bad_lines_can_be_skipped(run):
    good = lines(pairs(3))
    done = run("bleu-gpu", "--skip-bad", data=good + b"\n".join(line for line, _ in BAD) + b"\n" + good)
    assert done.returncode == 0, done.stderr
    assert len(scores(done)) == 6
    assert f"{len(BAD)} bad lines" in done.stderr


def test_edges_of_what_is_allowed_score_as_in_nltk(run):
    rows = [
        {"hyp": [], "refs": [[1]]}, {"hyp": [1], "refs": [[]]}, {"hyp": [-5, 2**62], "refs": [[-5, 2**62]]},
        {"hyp": [1, 2, 3, 4], "refs": [[], [1, 2, 3, 4]]},
    ]  # fmt: skip
    found = scores(run("bleu-gpu", data=lines(rows)))
    assert found[0] == 0
    assert found[3] == 1
    assert found == pytest.approx([sentence_bleu(row["refs"], row["hyp"]) for row in rows], abs=1e-12)


def test_padding_and_ends_are_cut_off(run):
    plain = [{"hyp": [5, 6, 7, 8, 9], "refs": [[5, 6, 7, 8]]}]
    padded = [{"hyp": [5, 6, 7, 8, 9, 2, 4, 0], "refs": [[5, 6, 7, 8, 0, 0]]}]
    given = run("bleu-gpu", "--eos-id", 2, "--pad-id", 0, data=lines(padded))
    assert scores(given) == scores(run("bleu-gpu", data=lines(plain)))


@pytest.mark.parametrize(
    "words", [["--stats", "--corpus"], ["--smoothing", "9"], ["--mode", "sacrebleu", "--smoothing", "3"]]
)
def test_options_that_do_not_fit_are_refused_before_anything_is_read(run, words):
    done = run("bleu-gpu", *words, data=b"nonsense\n")
    assert done.returncode == 2
    assert "hint" in done.stderr


def test_no_lines_are_an_error_and_so_is_a_missing_file(run, tmp_path):
    assert run("bleu-gpu", data=b"").returncode == 3
    assert run("bleu-gpu", tmp_path / "none.jsonl").returncode == 2
