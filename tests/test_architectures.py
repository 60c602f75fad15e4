"""What the sweep over transformers' classes left behind; `tests/benchmarks/architectures.py` renews the table."""

from __future__ import annotations

import json
from pathlib import Path

TABLE = json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))


def test_no_class_fails():
    failing = {
        name for name, row in TABLE.items() if any(outcome.startswith("fails") for outcome in row.values())
    }
    assert not failing


def test_what_is_refused_is_refused_with_a_reason():
    for name, row in TABLE.items():
        for step, outcome in row.items():
            if outcome.startswith("refused"):
                assert len(outcome) > len("refused: ") + 10, f"{name}: {step} is refused without a reason"


def test_the_classes_that_most_people_have_are_swept():
    assert TABLE["LlamaForCausalLM"]["eval"] == "works"
    assert {row["family"] for row in TABLE.values()} >= {"causal", "encoder"}
