"""Everything the command reads besides lines of pairs, and what it says of a corpus."""

from __future__ import annotations

import functools
import io
import json
import operator
import random

import pytest
import torch
from click.testing import CliRunner
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
from safetensors.torch import save_file

from bntools.core.errors import BnError
from bntools.tools.bleu_gpu import stream
from bntools.tools.bleu_gpu.command import ALSO, command
from bntools.tools.bleu_gpu.overlap import METRICS

SMOOTH = SmoothingFunction().method1


def pairs(count, seed=0, vocabulary=6):
    source = random.Random(seed)

    def ids():
        return [source.randrange(vocabulary) for _ in range(source.randrange(5, 20))]

    return [{"hyp": ids(), "refs": [ids() for _ in range(source.randrange(1, 4))]} for _ in range(count)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def call(*words, data=""):
    """The JSON lines that the command writes; an error is raised."""
    done = CliRunner().invoke(command, [*map(str, words)], input=data, standalone_mode=False)
    if done.exception:
        raise done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(rows, weights=(0.25,) * 4):
    return [sentence_bleu(r["refs"], r["hyp"], weights, smoothing_function=SMOOTH) for r in rows]


def scores(found):
    return [row["bleu"] for row in found]


def test_lines_written_in_any_way_are_read_alike_and_in_order():
    rows = pairs(30)
    ways = [
        lambda r: json.dumps(r),
        lambda r: json.dumps(r, separators=(",", ":")),
        lambda r: json.dumps({"refs": r["refs"], "id": "x\u00e9", "hyp": r["hyp"]}),
        lambda r: " " + json.dumps(r).replace("[", "[ ").replace(",", " ,") + " \r",
    ]
    text = "\n\n".join(ways[i % 4](row) for i, row in enumerate(rows))  # blank lines, no newline at the end
    found = call("--smoothing", 1, data=text)
    assert scores(found) == pytest.approx(expected(rows), abs=1e-12)


@pytest.mark.parametrize("block", [1, 7, 100])
def test_the_size_of_a_block_does_not_matter(block, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK", block)
    rows = pairs(6)
    extreme = [{"hyp": [2**63 - 1, -(2**63), 0, -7], "refs": [[], [2**63 - 1, -(2**63), 0, -7]]}]
    found = list(stream.pairs(io.BytesIO(lines(rows + extreme).encode())))
    assert functools.reduce(operator.iadd, (p.hyp.tolist() for p in found), []) == [
        i for r in rows + extreme for i in r["hyp"]
    ]
    assert functools.reduce(operator.iadd, (p.refs.tolist() for p in found), []) == [
        i for r in rows + extreme for ref in r["refs"] for i in ref
    ]


def test_numbers_that_json_refuses_are_refused_and_counted_by_line():
    for bad in ("[01]", "[1,]", "[-]", "[1 2]", "[9223372036854775808]", "[1.0]", "[1", "[1e3]"):
        text = lines(pairs(2)) + f'{{"hyp": {bad}, "refs": [[1]]}}\n'
        with pytest.raises(BnError, match="line 3"):
            call(data=text)


def test_tensors_in_files_score_like_lines(tmp_path):
    rows = pairs(20)
    width = 25
    hyp = torch.tensor([r["hyp"] + [7] + [9] * (width - 1 - len(r["hyp"])) for r in rows])
    refs = torch.tensor([r["refs"][0] + [9] * (width - len(r["refs"][0])) for r in rows], dtype=torch.int32)
    save_file({"ids": hyp}, tmp_path / "h.safetensors")
    save_file(
        {"ref": refs[:, None].contiguous(), "ref_len": torch.full((20, 1), width)}, tmp_path / "r.safetensors"
    )
    files = tmp_path / "h.safetensors", "--refs", tmp_path / "r.safetensors"
    single = [{"hyp": r["hyp"], "refs": r["refs"][:1]} for r in rows]
    found = call(*files, "--eos-id", 7, "--pad-id", 9, "--smoothing", 1)
    assert scores(found) == pytest.approx(expected(single), abs=1e-12)
    (report,) = call(*files, "--eos-id", 7, "--pad-id", 9, "--corpus")
    want = corpus_bleu([r["refs"] for r in single], [r["hyp"] for r in single])
    assert report["bleu"] == pytest.approx(want, abs=1e-12)


def test_tensors_without_references_are_told_from_bad_lines(tmp_path):
    save_file({"ids": torch.ones(2, 3, dtype=torch.int64)}, tmp_path / "h.safetensors")
    with pytest.raises(BnError, match="safetensors") as caught:
        call(tmp_path / "h.safetensors", "--skip-bad")
    assert caught.value.code == 3


def test_a_mean_of_undefined_scores_is_not_made_up():
    done = CliRunner().invoke(command, ["--smoothing", "6"], input=lines([{"hyp": [1, 2], "refs": [[1, 2]]}]))
    assert json.loads(done.stdout) == {"bleu": None}
    assert "nowhere defined" in done.stderr


def test_texts_are_scored_as_the_ids_of_a_tokenizer():
    from bntools.tools.bleu_gpu.sources import encoder

    rows = [
        {"hyp": "the whale swam away", "refs": "the white whale swam away"},
        {"hyp": "a", "refs": ["a", "b"]},
    ]
    encode = encoder("default:")
    ids = [
        {
            "hyp": encode([r["hyp"]])[0],
            "refs": encode([r["refs"]] if isinstance(r["refs"], str) else r["refs"]),
        }
        for r in rows
    ]
    assert call("--tokenizer", "default:", "--smoothing", 1, data=lines(rows)) == call(
        "--smoothing", 1, data=lines(ids)
    )


def test_samples_are_scored_against_their_group():
    samples = [row["hyp"] for row in pairs(12, vocabulary=3)]
    want = [
        sentence_bleu(
            [samples[j] for j in range(i // 4 * 4, i // 4 * 4 + 4) if j != i],
            samples[i],
            smoothing_function=SMOOTH,
        )
        for i in range(12)
    ]
    words = "--self-bleu", "--group", 4, "--smoothing", 1
    found = call(*words, data=lines(samples))
    assert scores(found) == pytest.approx(want, abs=1e-12)
    assert found[0]["distinct-1"] == len(set(samples[0])) / len(samples[0])
    with pytest.raises(BnError, match="11 samples"):
        call(*words, data=lines(samples[1:]))


def test_weights_and_other_metrics_reach_the_lines():
    rows = pairs(10)
    found = call(
        "--max-n",
        2,
        "--weights",
        "0.7,0.3",
        "--smoothing",
        1,
        "--also",
        "gleu",
        "--also",
        "rouge-l",
        data=lines(rows),
    )
    assert scores(found) == pytest.approx(expected(rows, (0.7, 0.3)), abs=1e-12)
    assert all(set(row) == {"bleu", "gleu", "rouge-l"} for row in found)


@pytest.mark.parametrize("mode", ["nltk", "sacrebleu"])
def test_an_interval_and_a_comparison_come_from_stored_statistics(mode, tmp_path):
    good = [{"hyp": [*r["refs"][0][:-1], 77], "refs": r["refs"]} for r in pairs(80)]
    poor = [{"hyp": r["hyp"][:4] + [78] * 4, "refs": r["refs"]} for r in good]
    (tmp_path / "poor.stats").write_text(lines(call("--stats", data=lines(poor))))
    stats = lines(call("--stats", data=lines(good)))
    words = "--from-stats", "--corpus", "--mode", mode, "--bootstrap", 200
    (report,) = call(*words, "--baseline", tmp_path / "poor.stats", data=stats)
    (plain,) = call("--corpus", "--mode", mode, data=lines(good))
    assert report["bleu"]["value"] == pytest.approx(plain["bleu"], abs=1e-12)
    assert report["bleu"]["low"] < plain["bleu"] < report["bleu"]["high"]
    assert report["difference"]["value"] == pytest.approx(
        report["bleu"]["value"] - report["baseline"], abs=1e-12
    )
    assert report["difference"]["low"] > 0
    assert report["p_value"] < 0.05
    assert call(*words, data=stats) == call(*words, "--threads", 1, data=stats)


CONTRADICTIONS = (
    "--bootstrap 100",
    "--self-bleu",
    "--group 3",
    "--refs x --tokenizer y",
    "--weights a",
    "--weights 1,1,1,1,1",
    "--corpus --bootstrap 10 --smoothing 6",
    "--corpus --also chrf",
)


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_options_that_contradict_each_other_are_refused(words):
    with pytest.raises(BnError) as caught:
        call(*words.split(), data="")
    assert caught.value.code == 2
    assert caught.value.hint


def test_every_metric_can_be_asked_for():
    assert list(METRICS) == ALSO
