"""Labels and losses from files of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bntools.core.datasets.activations import open_activations
from bntools.core.errors import bad_input, usage
from bntools.core.information.epochs import LABEL, whole_labels


def read_labels(source: str) -> NDArray[np.int64]:
    """Classes of the dump's rows: a .npy file, FILE:NAME for a column, or the column `label` of a file."""
    path, colon, name = source.rpartition(":")
    if not colon or os.path.exists(source):
        path, name = source, LABEL
    with open_activations(path, integers=True) as rows:
        if name in rows.columns:
            return whole_labels(rows.column(name))
        if rows.width != 1:
            raise bad_input(f"{path} has no column {name}", "one whole number a row, or FILE:NAME")
        return whole_labels(rows.read(0, rows.rows)[:, 0])


def read_losses(path: str) -> dict[int, dict[str, float]]:
    """Losses by epoch from JSON lines of epoch, train_loss, test_loss and n_train."""
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise usage(f"cannot open {path}: {error.strerror}", "check the path") from None
    losses = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            losses[int(entry["epoch"])] = {
                key: float(value) for key, value in entry.items() if key != "epoch"
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise bad_input(f"{path}, line {number} is no losses of an epoch",
                            '{"epoch": 3, "train_loss": 0.2, "test_loss": 0.3, "n_train": 8000}') from None  # fmt: skip
    return losses
