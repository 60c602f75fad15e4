"""The scores of OneIG-Bench (arXiv 2506.07977) that need no model here: from what an OCR or a viewer wrote to files.

Text: distance of what an OCR read to what should be there. Alignment: answers to a graph of questions about each image.
Diversity is `images.diversity` over the images of a prompt. Reasoning and style are read as numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bntools.core.errors import bad_input, usage

MOST_EDITS = {"en": 100, "zh": 50}
"""Edits from which on a text counts as lost."""
DIMENSIONS = ("alignment", "text", "reasoning", "style", "diversity")
_YES, _NO = {"yes", "true", "1", "y"}, {"no", "false", "0", "n"}


def read_lines(path: str, option: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """JSON objects of a file, one a line, each with the words that say where it stands. Raises BnError (exit 2, 3)."""
    if not Path(path).is_file():
        raise usage(f"--set {option}: no file {path}", "one JSON object a line")
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise bad_input(f"{path}, line {number} is no JSON object")
            yield f"{path}, line {number}", row


def edit_distance(a: str, b: str) -> int:
    """Least insertions, deletions and replacements of characters that turn a into b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def plain(text: str, language: str) -> str:
    """What is compared: for English words in lower case with one blank between, for Chinese signs without blanks."""
    cleaned = re.sub(r"[^\w\s']", " ", text.lower())
    return "".join(cleaned.split()) if language == "zh" else " ".join(cleaned.split())


def words_right(wanted: str, seen: str, language: str) -> tuple[int, int]:
    """How many of the wanted words (signs) were seen, each as often as it was; and how many there are."""
    of = list if language == "zh" else str.split
    rest, right, words = of(seen), 0, of(wanted)
    for word in words:
        if word in rest:
            rest.remove(word)
            right += 1
    return right, len(words)


def text_scores(path: str, language: str = "en") -> dict[str, Any]:
    """Edit distance, completion rate, word accuracy, and their composite 1 - min(ED, M) / M (1 - CR) (1 - WAC).

    A line is {"text": what should be there, "ocr": what was read}; M is 100 for English, 50 for Chinese.
    Raises BnError (exit 2, 3).
    """
    if language not in MOST_EDITS:
        raise usage(f"--set language={language} is none of {', '.join(MOST_EDITS)}")
    edits, right, total = [], 0, 0
    for place, row in read_lines(path, "ocr"):
        wanted, seen = row.get("text"), row.get("ocr")
        if not isinstance(wanted, str) or not isinstance(seen, str):
            raise bad_input(f'{place} has no "text" and "ocr"', '{"text": "OPEN", "ocr": "OPFN"}')
        wanted, seen = plain(wanted, language), plain(seen, language)
        edits.append(edit_distance(wanted, seen))
        hits, words = words_right(wanted, seen, language)
        right, total = right + hits, total + words
    if not edits or not total:
        raise bad_input(f"{path} holds no text to compare")
    values, most = np.array(edits, float), MOST_EDITS[language]
    distance, completed, accuracy = float(values.mean()), float((values == 0).mean()), right / total
    return {
        "score": 1 - min(distance, most) / most * (1 - completed) * (1 - accuracy),
        "edit_distance": {"mean": distance, "se": _error(values)},
        "completion_rate": {"mean": completed, "se": _error(values == 0)},
        "word_accuracy": accuracy, "images": len(edits), "words": total, "language": language,
    }  # fmt: skip


def alignment_scores(path: str) -> dict[str, Any]:
    """Share of questions answered yes, of each image and on average; a question whose parent is a no is a no.

    A line is {"answers": {"1": "Yes", ...}, "parents": {"2": ["1"]}}, and may have "class" (portrait, object, ...).
    Raises BnError (exit 2, 3), also for parents that go round in a circle.
    """
    images: list[float] = []
    classes: dict[str, list[float]] = {}
    for place, row in read_lines(path, "answers"):
        images.append(_aligned(row, place))
        classes.setdefault(str(row.get("class", "")), []).append(images[-1])
    if not images:
        raise bad_input(f"{path} holds no answers")
    return {
        "score": float(np.mean(images)), "se": _error(np.array(images)), "images": len(images),
        "classes": {name: float(np.mean(values)) for name, values in sorted(classes.items()) if name},
    }  # fmt: skip


def _aligned(row: Mapping[str, Any], place: str) -> float:
    answers, parents = row.get("answers"), row.get("parents", {})
    if not isinstance(answers, dict) or not answers or not isinstance(parents, dict):
        raise bad_input(
            f'{place} has no "answers"', '{"answers": {"1": "Yes", "2": "No"}, "parents": {"2": ["1"]}}'
        )
    plainly = {str(key): _yes(value, place) for key, value in answers.items()}
    above = {str(key): [str(p) for p in (v if isinstance(v, list) else [v])] for key, v in parents.items()}
    settled: dict[str, bool] = {}

    def settle(key: str, path: tuple[str, ...]) -> bool:
        if key in path:
            raise bad_input(f"{place}: question {key} stands above itself")
        if key not in settled:
            ups = [up for up in above.get(key, []) if up in plainly]
            settled[key] = min(
                [plainly[key], *(settle(up, (*path, key)) for up in ups)]
            )  # all of them: circles show
        return settled[key]

    return float(np.mean([settle(key, ()) for key in plainly]))


def _yes(value: Any, place: str) -> bool:
    word = str(value).strip().lower().rstrip(".")
    if word not in _YES | _NO:
        raise bad_input(f"{place}: {value!r} is neither yes nor no")
    return word in _YES


def layout(scores: Mapping[str, float | None]) -> list[float | None]:
    """The row of the benchmark's table: alignment, text, reasoning, style, diversity."""
    return [scores.get(name) for name in DIMENSIONS]


def _error(values: Any) -> float:
    array = np.asarray(values, float)
    return float(array.std() / max(len(array) - 1, 1) ** 0.5)
