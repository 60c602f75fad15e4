"""The computable scores of OneIG-Bench, against slow definitions and by hand."""

from __future__ import annotations

import functools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.core.errors import BnError
from bntools.core.methods.sample_scores import oneig


def written(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def slow_distance(a: str, b: str) -> int:
    @functools.cache
    def least(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(least(i - 1, j) + 1, least(i, j - 1) + 1, least(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return least(len(a), len(b))


@settings(max_examples=60, deadline=None)
@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
def test_edit_distance_is_the_definition_s(a, b):
    assert oneig.edit_distance(a, b) == slow_distance(a, b) == oneig.edit_distance(b, a)


def test_text_read_right_scores_one(tmp_path):
    rows = [{"text": "Open now!", "ocr": "OPEN  now"}, {"text": "Sale", "ocr": "sale"}]
    scores = oneig.text_scores(written(tmp_path / "ocr.jsonl", *rows))
    assert (scores["score"], scores["word_accuracy"]) == (1.0, 1.0)
    assert scores["completion_rate"]["mean"] == 1.0


def test_the_composite_is_as_written(tmp_path):
    rows = [
        {"text": "red fox", "ocr": "red box"},
        {"text": "one two", "ocr": "one two"},
        {"text": "a", "ocr": ""},
    ]
    scores = oneig.text_scores(written(tmp_path / "ocr.jsonl", *rows))
    assert scores["edit_distance"]["mean"] == pytest.approx(2 / 3)
    assert scores["completion_rate"]["mean"] == pytest.approx(1 / 3)
    assert scores["word_accuracy"] == pytest.approx(3 / 5)
    assert scores["score"] == pytest.approx(1 - (2 / 3) / 100 * (2 / 3) * (2 / 5))
    chinese = oneig.text_scores(written(tmp_path / "zh.jsonl", {"text": "春 天", "ocr": "春"}), "zh")
    assert chinese["word_accuracy"] == 0.5
    assert chinese["score"] == pytest.approx(1 - 1 / 50 * 1 * 0.5)


def test_more_edits_than_the_limit_count_as_the_limit(tmp_path):
    scores = oneig.text_scores(written(tmp_path / "ocr.jsonl", {"text": "x" * 500, "ocr": ""}))
    assert scores["score"] == 0.0


def test_a_word_is_right_as_often_as_it_was_read(tmp_path):
    assert oneig.words_right("no no no", "no yes no", "en") == (2, 3)


def test_a_no_is_a_no_for_what_hangs_on_it(tmp_path):
    row = {"answers": {"1": "No", "2": "Yes", "3": "Yes", "4": "yes."}, "parents": {"2": ["1"], "3": [2], "4": ["0"]},
           "class": "object"}  # fmt: skip
    other = {"answers": {"1": True, "2": False}, "class": "anime"}
    scores = oneig.alignment_scores(written(tmp_path / "answers.jsonl", row, other))
    assert scores["score"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert scores["classes"] == {"anime": 0.5, "object": 0.25}


@pytest.mark.parametrize(
    ("rows", "code"),
    [([{"text": "a"}], 3), ([], 3), ([{"text": "", "ocr": ""}], 3), ([[1]], 3)],
)  # fmt: skip
def test_files_without_text_are_refused(tmp_path, rows, code):
    with pytest.raises(BnError) as caught:
        oneig.text_scores(written(tmp_path / "ocr.jsonl", *rows))
    assert caught.value.code == code


CIRCLE = {"answers": {"1": "yes", "2": "yes"}, "parents": {"1": ["2"], "2": ["1"]}}


@pytest.mark.parametrize("row", [{}, {"answers": {}}, {"answers": {"1": "maybe"}}, CIRCLE])
def test_answers_that_are_none_are_refused(tmp_path, row):
    with pytest.raises(BnError) as caught:
        oneig.alignment_scores(written(tmp_path / "answers.jsonl", row))
    assert caught.value.code == 3


def test_missing_files_and_languages_are_usage(tmp_path):
    for call in (lambda: oneig.text_scores(str(tmp_path / "no")), lambda: oneig.alignment_scores(str(tmp_path / "no")),
                 lambda: oneig.text_scores(written(tmp_path / "a", {"text": "a", "ocr": "a"}), "fr")):  # fmt: skip
        with pytest.raises(BnError) as caught:
            call()
        assert caught.value.code == 2
