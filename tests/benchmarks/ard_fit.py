"""The counts of ard-fit on data of known answers and on digits, beside Minka's estimate, PCA and a plain VAE.

usage: python tests/benchmarks/ard_fit.py [--parts linear,curved,shapes,noise] [--seeds 5] [--mnist DIR --epochs N]

linear: r in 1, 3, 5, 10 axes x noise 0.05, 0.3, 1 x seeds, 2000 rows of 40 columns, starts 8 and 32.
curved: 5 axes through a random tanh network into 40 columns, noise 0.05, 4000 rows, multilayer perceptron, one restart.
shapes: a circle, a sphere and a torus in 20 columns. noise: no axis at all. mnist: starts 16, 32, 64, learned and fixed
decoder variance, each beside a plain VAE. One line a fit; CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from bntools.core.methods.vae.rows import RowSource, open_rows
from bntools.tools.ard_fit import Settings, ard_fit


def rows_of(x: np.ndarray) -> RowSource:
    return RowSource(lambda a, b: x[a:b], len(x), x.shape[1:], "x")


def planted(r: int, noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(2000, r)) @ rng.normal(size=(r, 40)) / np.sqrt(r)
    return (signal + noise * rng.normal(size=signal.shape)).astype(np.float32)


def curved(seed: int, r: int = 5) -> np.ndarray:
    rng = np.random.default_rng(100 + seed)
    hidden = np.tanh(1.5 * rng.normal(size=(4000, r)) @ rng.normal(size=(r, 64)) / np.sqrt(r))
    x = hidden @ rng.normal(size=(64, 40)) / 8
    return (x + 0.05 * rng.normal(size=x.shape)).astype(np.float32)


def shape(name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(200 + seed)
    a, b = rng.uniform(0, 2 * np.pi, (2, 3000))
    if name == "circle":
        points = np.stack([np.cos(a), np.sin(a)], 1)
    elif name == "sphere":
        points = rng.normal(size=(3000, 3))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    else:
        points = np.stack([(2 + np.cos(b)) * np.cos(a), (2 + np.cos(b)) * np.sin(a), np.sin(b)], 1)
    turn = np.linalg.qr(rng.normal(size=(20, points.shape[1])))[0]
    return (points @ turn.T + 0.02 * rng.normal(size=(3000, 20))).astype(np.float32)


def line(name: str, source: RowSource, settings: Settings) -> dict:
    began = time.process_time()
    report = ard_fit(source, settings).report
    cpu, rule = time.process_time() - began, report["by_criterion"]
    beside = f"Minka {report['linear']['minka']}, PCA {report['linear']['pca']}"
    if "vae" in report:
        beside += f", VAE {report['vae']['count']} (paper's rule {report['vae']['by_criterion']['paper']})"
    if "network" in report:
        beside += f", network {report['network']['count']}"
    count, edge = report["n_relevant"]["value"], " (edge)" if report["edge"] else ""
    rules = f"paper's rule {rule['paper']}, KL {rule['kl']}, rank {rule['rank']}"
    cost = f"cost {100 * report['error']['cost']['mean']:+.2f} %"
    state = "converged" if report["converged"] else "moving"
    print(
        f"{name}: {count}{edge} {report['method']} | {rules} | {beside} | {cost} | {state} | {cpu:.1f} s",
        flush=True,
    )
    return report


def linear(seeds: int) -> None:
    right = {8: 0, 32: 0}
    told = total = minka = 0
    for r in (1, 3, 5, 10):
        for noise in (0.05, 0.3, 1.0):
            for seed in range(seeds):
                x = planted(r, noise, seed)
                total += 1
                for start in right:
                    settings = Settings(arch="linear", max_dim=start, baseline=False)
                    report = ard_fit(rows_of(x), settings).report
                    right[start] += report["n_relevant"]["value"] == r
                    told += start < r and report["edge"]
                minka += report["linear"]["minka"] == r
    print(f"linear, {total} sets: start 32 exact {right[32]}, start 8 exact {right[8]}, answer over the start told "
          f"{told} of {total // 4}; Minka exact {minka}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="linear,curved,shapes,noise")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mnist")
    parser.add_argument("--arch", default="auto", help="of --mnist")
    parser.add_argument("--starts", default="16,32,64", help="of --mnist")
    parser.add_argument("--epochs", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = given.parts.split(",")
    if "linear" in parts:
        linear(given.seeds)
    if "curved" in parts:
        for seed in range(given.seeds):
            line(
                f"curved, 5 axes, seed {seed}",
                rows_of(curved(seed)),
                Settings(max_dim=16, restarts=1, seed=seed),
            )
    if "shapes" in parts:
        for name in ("circle", "sphere", "torus"):
            line(name, rows_of(shape(name, 0)), Settings(max_dim=8, restarts=1, baseline=False))
    if "noise" in parts:
        for seed in range(given.seeds):
            x = np.random.default_rng(seed).normal(size=(2000, 40)).astype(np.float32)
            line(f"noise, seed {seed}", rows_of(x), Settings(max_dim=8, restarts=1, baseline=False))
    if given.mnist:
        for variance, name in ((None, "learned"), (0.25, "0.25")):
            for start in map(int, given.starts.split(",")):
                settings = Settings(
                    arch=given.arch, max_dim=start, restarts=1, epochs=given.epochs, variance=variance
                )
                line(f"MNIST, start {start}, variance {name}", open_rows(given.mnist), settings)


if __name__ == "__main__":
    main()
