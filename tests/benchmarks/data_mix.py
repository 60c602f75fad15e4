"""data-mix on MNIST and Fashion-MNIST: error at larger sizes, regret, coverage and time, each beside its baseline.

    bntools fetch mnist -o mnist/; bntools fetch fashion-mnist -o fashion/
    python tests/benchmarks/data_mix.py mnist/ fashion/ [--cache DIR] [--designs 20] [--first 0] [--groups halves]

Three sources: 95 % of one half of the classes, 95 % of the other, all classes with a share of labels redrawn. All 66
mixtures on the grid of tenths are trained (PCA to 40 features, logistic head, l2 10), at pilot sizes with three seeds,
at 4,000 and 8,000 rows with two others. A design is some mixtures of the grid at random, with one seed. CPU seconds.

What the law's priors were set on is another problem: `--groups parity` (even and odd classes, 60 % redrawn) and designs
from 100 on. The defaults are what the documents quote.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bntools.core.datasets.labelled import read_idx
from bntools.tools.data_mix.choose.decide import Question, best_pilot, decide
from bntools.tools.data_mix.choose.simplex import Limits
from bntools.tools.data_mix.laws import fitted as joint
from bntools.tools.data_mix.laws import projektor
from bntools.tools.data_mix.pilots import transport
from bntools.tools.data_mix.pilots.heads import Rows, Task, logistic
from bntools.tools.data_mix.pilots.sources import Source, draw, gathered, standardised
from bntools.tools.data_mix.runs.runs import Runs

PILOTS, TRUTH = (250, 500, 1000, 2000), (4000, 8000)
SEEDS = 3
GROUPS = {"halves": (range(5), range(5, 10), 0.35), "parity": (range(0, 10, 2), range(1, 10, 2), 0.6)}
NAMES = ("A", "B", "C")


class Bench(NamedTuple):
    """Mixtures [66, 3]; errors of pilots [66, sizes, seeds] and at 4,000 and 8,000 [66, sizes, 2]; distances."""

    mixtures: np.ndarray
    pilots: np.ndarray
    truth: np.ndarray
    planes: transport.Planes


def features(folder):
    """Training and test rows, PCA to 40."""
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    x, y, tx, ty = (read_idx(sorted(Path(folder).glob(f"{stem}*"))[0]) for stem in stems)
    x, tx = (a.reshape(len(a), -1).astype(np.float32) / 255 for a in (x, tx))
    middle = x.mean(0)
    vectors = np.linalg.eigh(np.cov((x - middle).T))[1][:, ::-1][:, :40]
    return Rows((x - middle) @ vectors, y.astype(np.int64)), Rows((tx - middle) @ vectors, ty.astype(np.int64))


def sources(train, groups):
    rng, found = np.random.default_rng(0), []
    first, second, noise = GROUPS[groups]
    for name, classes in zip("AB", (first, second), strict=True):
        inside = np.isin(train.y, list(classes))
        own, other = rng.permutation(np.flatnonzero(inside)), rng.permutation(np.flatnonzero(~inside))
        rows = np.concatenate([own[:22800], other[:1200]])
        found.append(Source(name, Rows(train.x[rows], train.y[rows])))
    rows = rng.permutation(len(train.y))[:24000]
    y = train.y[rows].copy()
    redrawn = rng.random(len(y)) < noise
    y[redrawn] = rng.integers(0, 10, int(redrawn.sum()))
    return [*found, Source("C", Rows(train.x[rows], y))]


def trained(folder, groups):
    """The whole table of a data set."""
    train, test = features(folder)
    pool = sources(train, groups)
    mixtures = np.array([c for c in itertools.product(range(11), repeat=3) if sum(c) == 10]) / 10
    sizes = [len(s) for s in pool]

    def error(p, n, seed):
        rows = gathered(pool, draw(sizes, p, n, seed))
        return float((logistic(Task(rows, test, 10, 10.0)).argmax(1) != test.y).mean())

    pilots = np.array([[[error(p, n, s) for s in range(SEEDS)] for n in PILOTS] for p in mixtures])
    truth = np.array([[[error(p, n, s) for s in (100, 101)] for n in TRUTH] for p in mixtures])
    scaled, goal = standardised(pool, test)
    return Bench(mixtures, pilots, truth, transport.planes(scaled, goal))


def table(folder, groups, cache):
    path = Path(cache) / f"{Path(folder).name}-{groups}.npz" if cache else None
    if path and path.exists():
        kept = np.load(path)
        return Bench(
            *(kept[n] for n in ("mixtures", "pilots", "truth")), transport.Planes(kept["slopes"], kept["constants"])
        )
    bench = trained(folder, groups)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"mixtures": bench.mixtures, "pilots": bench.pilots, "truth": bench.truth}
        np.savez(path, **arrays, slopes=bench.planes.slopes, constants=bench.planes.constants)
    return bench


def runs_of(bench, design, count, sizes):
    """Runs of `count` random mixtures with one seed."""
    pick = np.sort(np.random.default_rng(design).choice(len(bench.mixtures), count, replace=False))
    columns = [PILOTS.index(n) for n in sizes]
    metric = bench.pilots[pick][:, columns, design % SEEDS].ravel()
    weights = np.repeat(bench.mixtures[pick], len(sizes), axis=0)
    return Runs(NAMES, weights, np.tile(np.array(sizes, float), count), metric, "error", np.zeros(len(metric), int))


def scored(bench, design, count, sizes, target):
    """One design: errors, coverage and regrets by name."""
    runs = runs_of(bench, design, count, sizes)
    column = TRUTH.index(target)
    truth, once = bench.truth[:, column].mean(1), bench.truth[:, column, 0]
    law, n = joint.fit(runs, sampling=joint.Sampling(seed=design)), np.full(len(truth), float(target))
    drawn = law.sample(bench.mixtures, n)
    low, high = np.quantile(law.noisy(drawn, n), [0.05, 0.95], axis=0)
    answer = decide(law, Question(float(target), Limits.none(3)))
    paper, plain = projektor.fit(runs, bench.planes), projektor.fit(runs)
    quadratic = paper.predict(bench.mixtures, target)

    def regret(p):
        """Of the mixture of the grid nearest to p."""
        return truth[np.argmin(((bench.mixtures - p) ** 2).sum(1))] - truth.min()

    return {
        "mae joint": np.abs(np.median(drawn, 0) - truth).mean(),
        "mae projektor": np.abs(quadratic - truth).mean(),
        "mae projektor, no OT": np.abs(plain.predict(bench.mixtures, target) - truth).mean(),
        "negative errors predicted by projektor": (quadratic < 0).any(),
        "bias joint": (np.median(drawn, 0) - truth).mean(),
        "coverage of 90 %": ((once >= low) & (once <= high)).mean(),
        "width of the interval": (high - low).mean(),
        "regret by the rule": regret((answer.best, answer.pilot)[answer.chosen]),
        "regret of the law's own": regret(answer.best),
        "regret best pilot": regret(best_pilot(runs)),
        "regret projektor": regret(paper.descend(float(target), 3)),
        "regret uniform": regret(np.full(3, 1 / 3)),
        "worse than the best pilot by the rule": regret((answer.best, answer.pilot)[answer.chosen])
        > regret(best_pilot(runs)) + 1e-9,
    }


def quality(bench, name, designs):
    print(f"\n{name}: error at 8,000 from {bench.truth[:, 1].mean(1).min():.3f} to {bench.truth[:, 1].mean(1).max():.3f}; "
          f"{len(designs)} designs")  # fmt: skip
    questions = [
        (14, (250, 500, 1000), 4000), (14, (250, 500, 1000), 8000), (14, (500, 1000, 2000), 8000),
        (8, (500, 1000, 2000), 8000),
    ]  # fmt: skip
    columns = [[scored(bench, d, *question) for d in designs] for question in questions]
    print(f"{'':44s}" + "".join(f"{c} x {s[0]}-{s[-1]} > {t}".rjust(22) for c, s, t in questions))
    for key in columns[0][0]:
        cells = []
        for scores in columns:
            values = np.array([float(s[key]) for s in scores])
            if key.startswith(("negative", "worse")):
                cells.append(f"{int(values.sum())} of {len(values)}")
            else:
                cells.append(f"{values.mean():.4f} +- {values.std(ddof=1) / len(values) ** 0.5:.4f}")
        print(f"{key:44s}" + "".join(cell.rjust(22) for cell in cells))


def speed(bench):
    """The command on 99 runs, CPU seconds with the start of Python, beside a start that does nothing."""
    runs = runs_of(bench, 0, 33, (500, 1000, 2000))
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for p, n, metric in zip(runs.weights.tolist(), runs.n.tolist(), runs.metric.tolist(), strict=True):
            told = {"weights": dict(zip(NAMES, p, strict=True)), "n": n, "metric": metric, "kind": "error"}
            file.write(json.dumps(told) + "\n")
        file.flush()
        for words in (["--help"], [file.name, "--at", "8000"], [file.name, "--at", "8000", "--next", "4"],
                      [file.name, "--at", "8000", "--compare"]):  # fmt: skip
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run([sys.executable, "-m", "bntools", "data-mix", *words], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            shown = " ".join(words).replace(file.name, "runs.jsonl")
            print(f"99 runs: {shown:40s} {spent:6.2f} CPU s, {time.monotonic() - began:6.2f} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--cache")
    parser.add_argument("--designs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--groups", choices=list(GROUPS), default="halves")
    given = parser.parse_args()
    for folder in given.folders:
        bench = table(folder, given.groups, given.cache)
        quality(bench, Path(folder).name, range(given.first, given.first + given.designs))
    speed(bench)
    print(f"{time.process_time():.0f} CPU s in all")


if __name__ == "__main__":
    main()
