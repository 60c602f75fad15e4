"""Multiple-choice tasks from local files: accuracy with its standard error, beside chance."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bntools.core.errors import bad_input, usage
from bntools.core.progress import Step, no_step
from bntools.core.text.tokens import Tokenizer
from bntools.tools.eval.text.head import Head, OwnHead, hidden_states

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """A prompt, the continuations to choose from, and the index of the right one."""

    task: str
    prompt: str
    choices: list[str]
    answer: int


@dataclass(frozen=True)
class Answer:
    """Summed log-probability of each choice, and the same a byte of its text."""

    question: Question
    logprobs: list[float]

    @property
    def right(self) -> bool:
        return _argmax(self.logprobs) == self.question.answer

    @property
    def right_normalized(self) -> bool:
        sizes = [max(len(choice.encode()), 1) for choice in self.question.choices]
        return (
            _argmax([value / size for value, size in zip(self.logprobs, sizes, strict=True)])
            == self.question.answer
        )


def _argmax(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def read_tasks(path: str) -> list[Question]:
    """Questions of a .jsonl file, or of a folder in MMLU's layout (dev/ and test/ with CSV files).

    A line: {"question" or "prompt", "choices": [...], "answer": index, letter or the choice's text}; "question" is
    asked as `Question: ...\\nAnswer:`, "prompt" is used as it is. Raises BnError (exit 3) naming file and line.
    """
    if Path(path).is_dir():
        return list(_mmlu(Path(path)))
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise usage(f"cannot read tasks {path}: {error.strerror}", "check the path") from None
    except UnicodeDecodeError as error:
        raise bad_input(f"{path} is not UTF-8 text (byte {error.start})") from None
    questions = [_line(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise bad_input(f"{path} holds no question")
    return questions


def _line(path: str, number: int, line: str) -> Question:
    where = f"{path}, line {number}"
    try:
        value = json.loads(line)
    except ValueError as error:
        raise bad_input(f"{where}: {error}") from None
    prompt = value.get("prompt", value.get("question")) if isinstance(value, dict) else None
    choices = value.get("choices") if isinstance(value, dict) else None
    if (
        not isinstance(prompt, str)
        or not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(c, str) for c in choices)
    ):
        raise bad_input(
            f"{where} needs a question or prompt and at least two choices",
            '{"question": ..., "choices": [...], "answer": 0}',
        )
    text = prompt if "prompt" in value else f"Question: {prompt}\nAnswer:"
    return Question(
        Path(path).stem,
        text,
        [f" {choice.strip()}" for choice in choices],
        _answer(where, value.get("answer"), choices),
    )


def _answer(where: str, answer: Any, choices: list[str]) -> int:
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str):
        if answer in choices:
            return choices.index(answer)
        if len(answer) == 1 and answer.upper() in LETTERS[: len(choices)]:
            return LETTERS.index(answer.upper())
    raise bad_input(f"{where}: answer {answer!r} is not one of its {len(choices)} choices")


def _mmlu(folder: Path) -> Iterator[Question]:
    """MMLU's own five-shot prompt; the choices are the letters A to D."""
    tests = sorted((folder / "test").glob("*_test.csv"))
    if not tests:
        raise bad_input(f"{folder} has no test/*_test.csv", "name a folder in MMLU's layout: dev/ and test/")
    for test in tests:
        subject = test.name.removesuffix("_test.csv")
        shots = _rows(folder / "dev" / f"{subject}_dev.csv")[:5]
        header = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        header += "".join(f"{_ask(row)} {row[5]}\n\n" for row in shots)
        for row in _rows(test):
            yield Question(subject, header + _ask(row), [" A", " B", " C", " D"], "ABCD".index(row[5]))


def _ask(row: list[str]) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in zip("ABCD", row[1:5], strict=True))
    return f"{row[0]}{options}\nAnswer:"


def _rows(path: Path) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise bad_input(f"cannot read {path}: {error.strerror}") from None
    for number, row in enumerate(rows, 1):
        if len(row) != 6 or row[5] not in ("A", "B", "C", "D"):
            raise bad_input(f"{path}, row {number} is not question,A,B,C,D,answer")
    return rows


@torch.no_grad()
def answer(
    model: Any,
    head: Head | OwnHead,
    tokenizer: Tokenizer,
    questions: list[Question],
    longest: int,
    step: Step = no_step,
) -> Iterator[Answer]:
    """Log-probability of every choice after its prompt. A prompt longer than `longest` tokens loses its beginning."""
    device = next(model.parameters()).device
    bos = [] if tokenizer.window_bos is None else [tokenizer.window_bos]
    for question in questions:
        prompt = bos + tokenizer.ids(question.prompt)
        if not prompt:
            raise bad_input(f"task {question.task}: a prompt without tokens")
        logprobs = []
        for choice in question.choices:
            tail = tokenizer.ids(question.prompt + choice)[len(prompt) - len(bos) :] or tokenizer.ids(choice)
            ids = torch.tensor((prompt + tail)[-longest:], device=device)
            states = hidden_states(model, ids[None, :-1])[0, -len(tail) :]
            logits = head.logits(states).log_softmax(-1)
            logprobs.append(float(logits.gather(1, ids[-len(tail) :, None]).sum()))
        yield Answer(question, logprobs)
        step(1)


def report(answers: list[Answer]) -> dict[str, Any]:
    """Accuracy and byte-normalized accuracy over all questions, and for each task, beside chance."""

    def rate(values: list[bool]) -> dict[str, float]:
        mean = sum(values) / len(values)
        return {"value": mean, "se": math.sqrt(mean * (1 - mean) / max(len(values) - 1, 1))}

    def block(chosen: list[Answer]) -> dict[str, Any]:
        return {
            "questions": len(chosen),
            "accuracy": rate([a.right for a in chosen]),
            "accuracy_normalized": rate([a.right_normalized for a in chosen]),
            "chance": sum(1 / len(a.question.choices) for a in chosen) / len(chosen),
        }

    names = sorted({a.question.task for a in answers})
    by_task = {name: block([a for a in answers if a.question.task == name]) for name in names}
    return {**block(answers), **({"tasks": by_task} if len(names) > 1 else {})}
