"""ib-analyze: seconds and memory of a dump, and CS-IB beside what it is compared with, over seeds.

Every number that bntools-ib-analyze(1) states. `--speed` measures a dump of 20 epochs, 6 layers, 10,000 rows and 256
numbers (`--epochs`, `--rows` make it smaller); `--regression` the errors on diabetes and on Friedman's first function.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_diabetes, make_friedman1

from bntools.core.datasets.activations import write_activations
from bntools.core.datasets.tables import open_table
from bntools.tools.ib_analyze.regression.design import read_rows
from bntools.tools.ib_analyze.regression.objectives import METHODS
from bntools.tools.ib_analyze.regression.report import baseline
from bntools.tools.ib_analyze.regression.settings import Regressing
from bntools.tools.ib_analyze.regression.train import sweep


def write_dump(folder: Path, epochs: int, rows: int, width: int = 256, layers: int = 6) -> None:
    """Layers of a random tanh network that grows over the epochs, one file an epoch, and ten classes."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 64)).astype(np.float32)
    labels = x[:, :10].argmax(1).astype(np.int64)
    write_activations(str(folder / "inputs.safetensors"), {"inputs": x}, {"label": labels})
    weights = [
        rng.standard_normal((64 if layer == 0 else width, width)).astype(np.float32)
        for layer in range(layers)
    ]
    for epoch in range(epochs):
        tensors, h = {}, x
        for layer, weight in enumerate(weights):
            h = np.tanh(h @ weight * ((1 + epoch / 20) / np.sqrt(len(weight))))
            tensors[f"epoch.{epoch}.layer.{layer + 1}"] = h
        write_activations(str(folder / f"epoch_{epoch:05d}.safetensors"), tensors)


def speed(epochs: int, rows: int, estimators: list[str]) -> None:
    """One command in a process of its own: wall seconds, CPU seconds and most resident memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dump(folder, epochs, rows)
        for estimator in estimators:
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            words = ["ib-analyze", str(folder), "--estimator", estimator, "--json", "-q"]
            done = subprocess.run([sys.executable, "-m", "bntools", *words], capture_output=True, check=True)
            after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
            points = len(json.loads(done.stdout)["points"])
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{estimator}: {points} points of {rows:,} x 256, {seconds:.1f} s, {cpu:.1f} CPU s, "
                  f"at most {after.ru_maxrss / 1024:.0f} MiB so far")  # fmt: skip


def tables() -> dict[str, dict[str, np.ndarray]]:
    x, y = load_diabetes(return_X_y=True)
    friedman = make_friedman1(1000, noise=1.0, random_state=0)
    return {"diabetes": {"x": x, "y": y}, "Friedman 1": {"x": friedman[0], "y": friedman[1]}}


def regression(seeds: list[int], settings: Regressing) -> None:
    """Test error of each method at the weight of least validation error, over splits; and under the largest attack."""
    for name, arrays in tables().items():
        figures: dict[str, list[tuple[float, ...]]] = {}
        with tempfile.TemporaryDirectory() as folder:
            save_file(arrays, f"{folder}/t.safetensors")
            for seed in seeds:
                own = Regressing(**{**vars(settings), "seed": seed})
                with open_table(f"{folder}/t.safetensors") as table:
                    rows = read_rows(table, "y", seed)
                for label, entry in _best(rows, own).items():
                    figures.setdefault(label, []).append(entry)
        print(f"{name}, {len(seeds)} splits: RMSE (se over splits), RMSE under attack 0.6, I(x; t)")
        for label, entries in figures.items():
            mean = np.mean(entries, 0)
            error = (
                np.std([entry[0] for entry in entries], ddof=1) / len(entries) ** 0.5
                if len(entries) > 1
                else 0
            )
            print(f"  {label:14s} {mean[0]:8.3f} ({error:.3f})  {mean[1]:8.3f}  {mean[2]:.3f}")


def _best(rows: Any, settings: Regressing) -> dict[str, tuple[float, ...]]:
    simple = baseline(rows)
    found = {
        "mean": (simple["mean_rmse"],) * 2 + (0.0,),
        "least squares": (simple["linear_rmse"], np.nan, np.nan),
    }
    entries = [run.entry for run in sweep(rows, settings)]
    for method in METHODS:
        best = min((e for e in entries if e["method"] == method), key=lambda e: e["validation_rmse"])
        found[method] = best["rmse"]["mean"], best["fgsm"][-1]["mean"], best["information"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--regression", action="store_true")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--estimators", default="compressed,binning,mixture")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--norm", default="paper")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--train-epochs", type=int, default=100)
    chosen = parser.parse_args()
    if chosen.speed:
        speed(chosen.epochs, chosen.rows, chosen.estimators.split(","))
    if chosen.regression:
        settings = Regressing(norm=chosen.norm, width=chosen.width, epochs=chosen.train_epochs)
        regression(list(range(chosen.first_seed, chosen.first_seed + chosen.seeds)), settings)


if __name__ == "__main__":
    main()
