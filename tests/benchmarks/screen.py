"""Screening: ranking, speed, false discoveries and memory, each beside its baseline in the same run.

    python tests/benchmarks/screen.py [ranking] [discoveries] [tails] [wide] [tissue TABLE]

CPU seconds of one thread. Peers are used where they are installed: scikit-learn, fastHDMI.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from bntools.core.datasets.tables import open_table
from bntools.tools.screen.run import screen
from bntools.tools.screen.settings import Settings

EFFECTS = 10


@contextlib.contextmanager
def silent(what, total):
    yield lambda count: None


def planted(seed, n=200, p=2000, errors="normal"):
    """x [n, p]; y: two linear, two square, two sine, two absolute and two threshold effects, and errors."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((p, n)).astype(np.float32)
    parts = [x[0], x[1], x[2] ** 2, x[3] ** 2, np.sin(3 * x[4]), np.sin(3 * x[5])]
    parts += [abs(x[6]), abs(x[7]), x[8] > 0.5, x[9] > 0]
    noise = rng.standard_normal(n)
    if errors == "cauchy":
        noise = np.where(rng.random(n) < 0.05, 5 * rng.standard_cauchy(n), noise)
    return x.T.copy(), sum((v - v.mean()) / v.std() for v in parts) + noise


def auc(scores):
    """Chance that a planted column, of which the first are, ranks above another."""
    order = np.argsort(np.argsort(np.nan_to_num(scores, nan=-1e9)))
    return (order[:EFFECTS].mean() - (EFFECTS - 1) / 2) / (len(scores) - EFFECTS)


def run(x, y, **options):
    """Screening of arrays through a file: result and CPU seconds, the reading and the null included."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        save_file({"x": x, "y": y}, file.name)
        with open_table(file.name) as table:
            began = time.process_time()
            result = screen(table, Settings("y", **options), silent)
            return result, time.process_time() - began


def in_order(values, result):
    """Values of the columns in the order of the table, whose target may stand first."""
    return values[np.argsort(result.positions)]


def peers():
    """Scorers of the peers at hand: name to function of x [n, p], y, classes or not."""
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    def neighbours(x, y, c):
        return (mutual_info_classif if c else mutual_info_regression)(x, y, random_state=0)

    scorers = {"scikit-learn, 3 neighbours": neighbours}
    with contextlib.suppress(Exception):
        setattr(np, "infty", np.inf)  # noqa: B010  numpy 2 dropped the name that fastHDMI uses
        stub = types.ModuleType("dask")
        stub.dataframe = types.ModuleType("dask.dataframe")
        sys.modules.setdefault("dask", stub)
        sys.modules.setdefault("dask.dataframe", stub.dataframe)
        import fastHDMI

        def fast(x, y, c):
            if c:
                return np.array([fastHDMI.MI_binary_continuous(y, v.astype(float), 1.0) for v in x.T])
            return np.array([fastHDMI.MI_continuous_continuous(v.astype(float), y, 1.0) for v in x.T])

        scorers["fastHDMI"] = fast
    return scorers


def ranking(draws=6):
    """Area under the curve of planted effects, and time against the peers, warm."""
    run(*planted(99, p=50))
    run(planted(99, p=50)[0], (planted(99, p=50)[1] > 0).astype(np.int64))
    for what in ("normal", "cauchy", "binary"):
        rows = {}
        for seed in range(draws):
            x, y = planted(seed, errors="cauchy" if what == "cauchy" else "normal")
            if what == "binary":
                y = (y > np.median(y)).astype(np.int64)
            for method in ("auto", "kde", "bins", "xi", "pearson"):
                result, seconds = run(x, y, method=method)
                rows.setdefault(method, []).append((auc(in_order(result.scored.score, result)), seconds))
            for name, score in peers().items():
                columns = x if name != "fastHDMI" else x[:, :200]
                began = time.process_time()
                scores = score(columns, y, what == "binary")
                seconds = (time.process_time() - began) * x.shape[1] / columns.shape[1]
                rows.setdefault(name, []).append((auc(scores), seconds))
        print(
            f"\noutcome {what}: 10 effects in 2,000 columns of 200 rows, {draws} draws (fastHDMI: in the first 200)"
        )
        base = np.mean([s for _, s in rows["auto"]])
        for name, values in rows.items():
            area, seconds = np.mean(values, 0)
            print(f"  {name:28s} AUC {area:.3f}   {seconds:8.3f} s   {seconds / base:7.1f} times auto")


def discoveries(draws=20):
    """Share of false discoveries at level .1, and effects selected of 10."""
    for method in ("auto", "kde", "bins", "knn", "xi", "pearson"):
        found = []
        for seed in range(draws if method != "auto" else 5 * draws):
            x, y = planted(1000 + seed)
            result, _ = run(x, y, method=method)
            at = np.flatnonzero(in_order(result.selected, result))
            found.append(((at >= EFFECTS).sum() / max(len(at), 1), (at < EFFECTS).sum()))
        share, power = np.mean(found, 0)
        se = np.std([v for v, _ in found]) / np.sqrt(len(found))
        print(
            f"  {method:8s} false {share:.3f} +- {se:.3f}   selected {power:.2f} of 10   ({len(found)} draws)"
        )


def tails(draws=80):
    """How many times too often p-values of columns that say nothing are small, by the number of permutations."""
    levels = (1e-2, 1e-3, 1e-4)
    for permutations in (5000, 50_000):
        counts, false = [], []
        for seed in range(draws):
            result, _ = run(*planted(1000 + seed), permutations=permutations)
            p = in_order(result.scored.p, result)[EFFECTS:]
            chosen = in_order(result.selected, result)
            counts.append([(p <= level).mean() / level for level in levels])
            false.append(chosen[EFFECTS:].sum() / max(chosen.sum(), 1))
        shown = zip(levels, np.mean(counts, 0), np.std(counts, 0) / np.sqrt(draws), strict=True)
        print(f"  {permutations:,}: false {np.mean(false):.3f} +- {np.std(false) / np.sqrt(draws):.3f}; "
              + ", ".join(f"{level:g} {times:.2f} +- {se:.2f} times" for level, times, se in shown))  # fmt: skip


def wide(columns=1_000_000, rows=500):
    """CPU seconds, peak memory and bytes read of one pass over `rows` x `columns` float32."""
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    path = folder / "bntools-wide.safetensors"
    head = b'{"x":{"dtype":"F32","shape":[%d,%d],"data_offsets":[0,%d]},'
    head += b'"y":{"dtype":"F32","shape":[%d],"data_offsets":[%d,%d]}}'
    size = 4 * rows * columns
    text = head % (rows, columns, size, rows, size, size + 4 * rows)
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    try:
        with open(path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            y = np.empty(rows, np.float32)
            for i in range(rows):
                row = rng.standard_normal(columns, np.float32)
                y[i] = row[7] ** 2 + 0.3 * rng.standard_normal()
                file.write(row.data)
            file.write(y.data)
        for method, classes in (("auto", False), ("kde", False), ("kde", True)):
            before = Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0]
            with open_table(str(path)) as table:
                began = time.process_time()
                result = screen(
                    table, Settings("y", method=method, permutations=100_000, outcome="continuous"), silent
                )
                seconds = time.process_time() - began
            after = Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            share, best = (int(after) - int(before)) / size, result.positions[result.order[0]]
            print(
                f"  {method}: {seconds:.1f} s, peak {peak:.2f} GB, read {share:.3f} of the data; best column {best}"
            )
            if classes:
                break
    finally:
        path.unlink(missing_ok=True)


def tissue(table):
    """The tissue expression of dslabs against scikit-learn, and permuted outcomes."""
    from sklearn.feature_selection import mutual_info_classif

    with open_table(table) as read:
        names = [name for name in read.names if name != "y"]
        x = np.stack([read.column(name) for name in names], 1)
        y = np.unique(read.column("y"), return_inverse=True)[1]
    run(x[:, :20], y, permutations=1000)
    for method in ("auto", "kde", "bins"):
        result, seconds = run(x, y, method=method)
        began = time.process_time()
        theirs = mutual_info_classif(x, y, random_state=0)
        slow = time.process_time() - began
        ours = in_order(result.scored.statistic, result)
        shared = len(set(np.argsort(-ours)[:50]) & set(np.argsort(-theirs)[:50]))
        ranks = np.corrcoef(np.argsort(np.argsort(ours)), np.argsort(np.argsort(theirs)))[0, 1]
        print(f"  {method}: {seconds:.3f} s, scikit-learn {slow:.2f} s, {slow / seconds:.0f} times")
        print(f"    rank correlation {ranks:.3f}, {shared} of the top 50 shared")
    rng = np.random.default_rng(0)
    counts = [int(run(x, rng.permutation(y))[0].selected.sum()) for _ in range(5)]
    print(f"  selected with a permuted outcome, 5 times: {counts}")


if __name__ == "__main__":
    words = sys.argv[1:] or ["ranking", "discoveries", "wide"]
    if "tissue" in words:
        tissue(words[words.index("tissue") + 1])
    for word in words:
        if word in ("ranking", "discoveries", "tails", "wide"):
            print(word)
            {"ranking": ranking, "discoveries": discoveries, "tails": tails, "wide": wide}[word]()
