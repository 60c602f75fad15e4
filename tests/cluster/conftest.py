"""A quick command that divides, and how its results are compared."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Runs for scale-fit: quick, and no library that is slow to import."""
    path = tmp_path_factory.mktemp("runs") / "runs.jsonl"
    lines = [{"N": n, "D": d, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28}
             for n in (1e6, 3e6, 1e7, 3e7) for d in (1e8, 3e8, 1e9)]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def quick(runs):
    """Words of a command of three blocks of replicates."""
    return ["scale-fit", str(runs), "--bootstrap", "8000", "--json"]


@pytest.fixture(scope="session")
def plain(run, quick):
    """What it prints undivided."""
    return run(*quick).stdout
