"""What embed-fit's man page states: losses of AUC at each budget, bytes, and rows a second against plain torch.

Reduced by default to 60,000 rows a set and to unified and hash among the published methods (about ten minutes of one
core); --whole takes all rows and budgets, --sets, --splits and --methods (unified,qr,mde,robe,pep,dnis) choose. The
prior of each method is tuned on a split of its own, whose test rows are not quoted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bntools.core.datasets.cache import cache_dir
from bntools.core.datasets.tables import open_table
from bntools.core.methods.embedding import scores
from bntools.kernels.embedding.head import Head
from bntools.tools.embed_fit.methods.fitting import Bench, fit_plain
from bntools.tools.embed_fit.methods.plain import row_table
from bntools.tools.embed_fit.problem import problem, read
from bntools.tools.embed_fit.settings import Settings
from bntools.tools.embed_fit.sweep import method_of
from bntools.tools.embed_fit.training import Training, train

SETS = {
    "movielens": ("ratings.csv", "rating", 4, ("userId", "movieId", "genres", "year")),
    "insteval": ("ratings.csv", "y", 4, ("s", "d", "studage", "lectage", "service", "dept")),
    "nycflights": ("flights.csv", "arr_delay", 15.5,
                   ("tailnum", "flight", "dest", "origin", "carrier", "month", "day", "hour")),
}  # fmt: skip
TUNING = 999


def data_of(name, rows):
    folder = cache_dir() / "benchmarks" / name
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "bntools", "fetch", name, "-o", str(folder)], check=True, stdout=2
        )
    file, target, least, fields = SETS[name]
    settings = Settings(at_least=least, fields=fields)
    with open_table(str(Path(folder) / file)) as table:
        data = read(table, target, settings)
    if rows and rows < len(data.y):
        chosen = np.sort(np.random.default_rng(0).choice(len(data.y), rows, replace=False))
        data = data._replace(columns={k: v[chosen] for k, v in data.columns.items()}, y=data.y[chosen])
    return data, settings


def sweep(name, args):
    """{(what, budget): losses of AUC a split, shares of bytes}."""
    data, settings = data_of(name, None if args.whole else 60_000)
    settings = replace(settings, dim=16)
    tuning = Bench(problem(data, replace(settings, seed=TUNING), 0), settings)
    methods = args.methods.split(",")
    jobs = [
        ("spectral", b, bits)
        for b, bits in ((1 / 8, 32), (1 / 16, 32), (1 / 32, 32), (1 / 8, 8), (1 / 16, 8))
    ]
    jobs += [("full", 1 / 16, 32), ("unified", 1 / 32, 32)]
    budgets = [1 / 2**k for k in range(1, 6)] if args.whole else [1 / 8]
    jobs += [(m, b, 32) for b in budgets for m in ("hash", *methods) if (m, b) != ("unified", 1 / 32)]
    tuning.full_table(16)
    for method, budget, bits in jobs:
        tuning.settings = replace(settings, bits=bits)
        method_of(method)(tuning, budget)
    found = {}
    for split in range(args.splits):
        bench = Bench(problem(data, settings, split), settings, frozen=dict(tuning.priors))
        reference, y = fit_plain(bench, "full", 1.0), bench.problem.test.y
        for method, budget, bits in jobs:
            bench.settings = replace(settings, bits=bits)
            fitted = method_of(method)(bench, budget)
            if fitted is None:
                continue
            change = scores.auc_difference(y, fitted.output, reference.output)["mean"]
            size = fitted.stored.nbytes()
            share = (size["embedding"] + size["index"]) / (4 * bench.problem.values * 16)
            found.setdefault((method, budget, bits), []).append((change, share))
        print(
            f"{name} split {split}: AUC of the full table {scores.auc(y, reference.output)['value']:.4f}, "
            f"{time.process_time():.0f} CPU s",
            file=sys.stderr,
            flush=True,
        )
    return found


def show(name, found):
    print(f"\n{name}: change of AUC against the full table of 16, mean ± se over splits, share of its bytes")
    for (method, budget, bits), values in sorted(found.items(), key=lambda item: (-item[0][1], item[0][0])):
        change, share = np.array(values).T
        se = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else float("nan")
        what = f"{method:9} 1/{round(1 / budget):<3} {bits:2} bits"
        print(f"  {what}  {change.mean():+.4f} ± {se:.4f}   1/{1 / share.mean():.1f}")


class Plain(torch.nn.Module):
    """The same model by torch's own layers."""

    def __init__(self, sizes, d):
        super().__init__()
        self.tables = torch.nn.ModuleList(torch.nn.Embedding(n + 1, d) for n in sizes)
        D = d * len(sizes)
        self.U, self.V = torch.nn.Linear(D, 32, bias=False), torch.nn.Linear(32, D)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(D, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32), torch.nn.ReLU()
        )
        self.out = torch.nn.Linear(D + 32, 1)

    def forward(self, ids):
        x0 = torch.cat([table(ids[:, t]) for t, table in enumerate(self.tables)], 1)
        return self.out(torch.cat([x0 * self.V(self.U(x0)) + x0, self.mlp(x0)], 1))[:, 0]


def speed(args):
    """Rows a CPU second of one epoch, interleaved five times; the medians."""
    print("\ntraining rows a CPU second: ours, plain torch (nn.Embedding, autograd, Adam), ratio")
    for name in args.sets.split(","):
        data, settings = data_of(name, 60_000)
        one = problem(data, settings, 0)
        for d in (16, 1):
            rates = {"ours": [], "torch": []}
            lookup = row_table(one, d, 0).lookup
            head = Head("dcn", lookup.widths, 0)
            plain = Plain([len(f.values) for f in one.fields], d)
            groups = [
                {"params": plain.tables.parameters(), "weight_decay": 100 / len(one.train.y)},
                {"params": [p for n, p in plain.named_parameters() if not n.startswith("tables")]},
            ]
            optimiser = torch.optim.Adam(groups, 2e-3)
            few = one.valid._replace(ids=one.valid.ids[:64], y=one.valid.y[:64])
            train(lookup, head, (few, few), 100.0, Training(epochs=1))  # compiled before it is timed
            ids, y = torch.from_numpy(one.train.ids.astype(np.int64)), torch.from_numpy(one.train.y)
            for _ in range(5):
                began = time.process_time()
                train(lookup, head, (one.train, few), 100.0, Training(epochs=1))
                rates["ours"].append(len(y) / (time.process_time() - began))
                began = time.process_time()
                for rows in torch.randperm(len(y)).split(2048):
                    optimiser.zero_grad()
                    torch.nn.functional.binary_cross_entropy_with_logits(plain(ids[rows]), y[rows]).backward()
                    optimiser.step()
                rates["torch"].append(len(y) / (time.process_time() - began))
            ours, other = (float(np.median(rates[k])) for k in ("ours", "torch"))
            print(f"  {name:10} d = {d:2}  {ours:9,.0f} {other:9,.0f}  {ours / other:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--methods", default="unified")
    parser.add_argument("--whole", action="store_true", help="all rows, and published methods at 1/2 to 1/32")
    parser.add_argument("--speed", action="store_true", help="only the rows a second")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.speed:
        for name in args.sets.split(","):
            show(name, sweep(name, args))
    speed(args)


if __name__ == "__main__":
    main()
