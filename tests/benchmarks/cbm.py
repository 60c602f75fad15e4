"""Concept bottlenecks on WordNet definitions: accuracy, speed, interventions, edits, memory, each beside its baseline.

    bntools fetch wordnet -o wordnet/; bntools fetch wordllama -o wordllama/
    python tests/benchmarks/cbm.py wordnet/ wordllama/ [SECTION ...]

Sections: accuracy speed intervene spurious energies discovered order memory; all of them where none is named.

Peer for `speed`, where it is installed: scikit-learn's saga. CPU seconds, one thread, in one run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bntools.core.methods.cbm.bottleneck import Bottleneck
from bntools.core.methods.cbm.energy import score as energy_score
from bntools.core.methods.cbm.inputs import Embeddings
from bntools.core.methods.cbm.score import class_indices
from bntools.core.progress import no_progress
from bntools.kernels.linear import softmax
from bntools.kernels.linear.design import FactoredDesign
from bntools.kernels.linear.fit import fit, null
from bntools.tools.cbm_build import builders, head
from bntools.tools.cbm_build.banks.select import random
from bntools.tools.cbm_build.build import Sources, build, choose, prepare
from bntools.tools.cbm_build.demo.sources import demo
from bntools.tools.cbm_build.methods import dn
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_edit.adapt import adapt
from bntools.tools.cbm_edit.edit import prune
from bntools.tools.cbm_explain.energies import intervene as asked
from bntools.tools.cbm_explain.intervene import intervene

PER_CLASS = 27  # about 600 concepts in all, since classes share some
NECS = (1, 2, 3, 5, 10, 15, 20, 30)


def paired(values: list[float]) -> str:
    a = 100 * np.array(values)
    return f"{a.mean():6.2f} ± {a.std(ddof=1) / len(a) ** 0.5 if len(a) > 1 else 0:.2f}"


def accuracy(folder: str, encoder: str, seeds: int = 5) -> None:
    """Mean over seeds, each a task of its own, and the standard error of the mean (of the difference: paired)."""
    rows: dict[str, list[float]] = {}
    for seed in range(seeds):
        made = demo(folder, encoder, seed)
        settings = Settings(per_class=PER_CLASS, seed=seed)
        training, _, pool = choose(prepare(made.sources, settings)[0], settings)
        chance = training.with_bank(pool.at(random(len(training.bank), len(pool), seed)))
        plan = head.Plan(NECS)
        cases = {
            "labo": (training, plan),
            "random concepts": (chance, plan),
            "published": (training, replace(plan, refit=False)),
        }
        hits: dict[str, dict[int, float]] = {}
        for name, (data, how) in cases.items():
            part, held = data.division()
            design = data.design
            assert isinstance(design, FactoredDesign)
            test = FactoredDesign(made.test.x, data.bank.vectors, (design.center, design.standard))
            truth = softmax.Labels.tally(made.test.need_labels(), len(data.classes))
            points = head.sparse_head(data.whole, part, held, how, no_progress)
            hits[name] = {
                p.nec: head.predict_accuracy(head.Split(test, truth), p.fit.weight, p.fit.bias)
                for p in points
            }
        for nec in NECS:
            for name, values in hits.items():
                rows.setdefault(f"NEC {nec:2d} {name}", []).append(values[nec])
            for name in ("published", "random concepts"):
                rows.setdefault(f"NEC {nec:2d}   labo - {name}", []).append(
                    hits["labo"][nec] - hits[name][nec]
                )
        print(f"seed {seed}: {len(training.bank)} concepts, {len(pool)} candidates", flush=True)
    for name, values in rows.items():
        print(f"{name:34s} {paired(values)} %")


def speed(folder: str, encoder: str) -> None:
    """The table of sparsities, and one penalty (0.15 of the strongest) to a gap; objectives in double precision."""
    made = demo(folder, encoder, 0)
    settings = Settings(per_class=PER_CLASS)
    training = choose(prepare(made.sources, settings)[0], settings)[0]
    part, held = training.division()
    plan = head.Plan(NECS)
    head.sparse_head(training.whole, part, held, head.Plan((1,), 0.1), no_progress)  # compiled
    began = time.process_time()
    head.sparse_head(training.whole, part, held, plan, no_progress)
    print(
        f"whole table, {len(training.bank)} concepts, l2 by validation: {time.process_time() - began:.2f} CPU s"
    )
    began = time.process_time()
    head.sparse_head(training.whole, part, held, replace(plan, l2=0.03), no_progress)
    print(f"whole table, l2 given: {time.process_time() - began:.2f} CPU s")
    design = FactoredDesign(training.embeddings, training.bank.vectors)
    problem = head.problem_of(head.Split(design, training.labels))
    penalty = head.penalty_at(0.15, head.strongest(problem))
    reference = fit(problem, penalty, null(problem), tolerance=2e-5, limit=400)
    x = design.scores(np.eye(design.columns, dtype=np.float32)).T.copy()
    y = training.y

    def objective(weight: np.ndarray, bias: np.ndarray) -> float:
        return softmax.loss((weight.astype(np.float64) @ x.T + bias[:, None]), training.labels) + penalty.of(
            weight
        )

    best = objective(reference.weight, reference.bias)

    def show(name: str, began: float, weight: np.ndarray, bias: np.ndarray) -> None:
        spent, value = time.process_time() - began, objective(weight, bias)
        print(
            f"{name:34s} {spent:6.2f} CPU s  gap {value / best - 1:9.1e}  NEC {(weight != 0).sum() / len(weight):6.2f}",
            flush=True,
        )

    for tolerance in (1e-3, 1e-4):
        began = time.process_time()
        model = fit(problem._replace(gram=design.gram()), penalty, null(problem), tolerance=tolerance)
        show(f"bntools, gap {tolerance:g}", began, model.weight, model.bias)
    _peers(x, y, penalty, show)


def _peers(x: np.ndarray, y: np.ndarray, penalty, show) -> None:
    import warnings

    warnings.simplefilter("ignore")
    strength = penalty.l1 + penalty.l2
    try:
        from sklearn.linear_model import LogisticRegression

        for epochs in (5, 20):
            began = time.process_time()
            model = LogisticRegression(solver="saga", C=1 / (strength * len(y)), l1_ratio=penalty.l1 / strength,
                                       penalty="elasticnet", max_iter=epochs, tol=0).fit(x, y)  # fmt: skip
            show(f"scikit-learn saga, {epochs} epochs", began, model.coef_, model.intercept_)
    except ImportError:
        print("scikit-learn is not installed")


def corrected(folder: str, encoder: str, seeds: int = 5) -> None:
    """Points gained by one and more corrected concepts in each row, by policy."""
    gains: dict[str, list[float]] = {}
    for seed in range(seeds):
        made = demo(folder, encoder, seed)
        model, _ = build(made.sources, Settings(bank="cav", seed=seed), no_progress)
        for policy in ("random", "uncertainty", "margin", "expected"):
            report = intervene(
                model, made.test, made.test_truth, policy=policy, budgets=(1, 2, 5, 10), seed=seed
            )
            for point in report["curve"]:
                gains.setdefault(f"{policy:12s} {point['corrected']:2d} corrected", []).append(point["gain"])
    for name, values in gains.items():
        print(f"{name:28s} {paired(values)} points")


def spurious(folder: str, encoder: str, seeds: int = 5) -> None:
    """A direction without meaning that goes with one class in training and with another one in the new domain.

    Recovered: accuracy gained by the edit, over what the new domain costs. adapt sees 4 rows a class of it.
    """
    shares: dict[str, list[float]] = {}
    for seed in range(seeds):
        made = demo(folder, encoder, seed)
        draw = np.random.default_rng(seed)
        data, concepts = made.sources.data, made.sources.concepts
        assert concepts is not None
        width = data.x.shape[1]

        def plant(rows: Embeddings, fraction: float, shift: int, width=width, draw=draw) -> Embeddings:
            y = rows.need_labels()
            with_it = draw.random(len(y)) < np.where((y + shift) % 24 < 6, fraction, 0.05)
            return replace(
                rows,
                x=np.hstack([rows.x, (0.8 * with_it + 0.05 * draw.normal(size=len(y)))[:, None]]).astype(
                    np.float32
                ),
            )

        bank = np.vstack([np.hstack([concepts.x, np.zeros((len(concepts.x), 1))]), np.eye(width + 1)[-1:]])
        pool = replace(concepts, x=bank.astype(np.float32), names=[*concepts.names, "planted"])
        owner = np.vstack([made.sources.owner, np.ones((1, 24), np.int64)])
        train = plant(data, 0.95, 0)
        sources = Sources(train, pool, owner, class_names=data.facts["classes"])
        model, _ = build(sources, Settings(seed=seed, normalize=False), no_progress)
        same, target = plant(made.test, 0.95, 0), plant(made.test, 0.95, 12)
        clean = replace(
            made.test, x=np.hstack([made.test.x, np.zeros((len(made.test.x), 1))]).astype(np.float32)
        )
        y = class_indices(model, target)
        few_rows = np.concatenate([draw.permutation(np.flatnonzero(y == c))[:4] for c in range(24)])
        few = replace(target, x=target.x[few_rows], labels=target.need_labels()[few_rows], names=[])
        rest = np.setdiff1d(np.arange(len(y)), few_rows)

        def at(bottleneck: Bottleneck, rows: Embeddings, rest=rest, y=y) -> float:
            return float((bottleneck.predict(rows.x[rest]) == y[rest]).mean())

        pruned = prune(model, [("*", "planted")], normalize=False)[0]
        adapted = adapt(model, few, clean, 0.002)[0]
        bound, hurt = at(pruned, clean), at(model, target)
        print(f"seed {seed}: training domain {at(model, same):.3f}, new domain {hurt:.3f}, without it {bound:.3f}, "
              f"pruned {at(pruned, target):.3f}, adapted {at(adapted, target):.3f}", flush=True)  # fmt: skip
        for name, edited in (("prune", pruned), ("adapt", adapted)):
            shares.setdefault(name, []).append((at(edited, target) - hurt) / (bound - hurt))
    for name, values in shares.items():
        print(f"{name} recovers {paired(values)} % of what the planted concept costs")


def energies(folder: str, encoder: str, seeds: int = 3) -> None:
    """Classes and hypernym concepts by energies, beside factors alone and linear probes; concepts corrected."""
    rows: dict[str, list[float]] = {}
    for seed in range(seeds):
        made = demo(folder, encoder, seed)
        began = time.process_time()
        model, _ = builders.build(made.sources, Settings(method="ecbm", seed=seed), no_progress)
        trained = time.process_time() - began
        began = time.process_time()
        report = energy_score.score(model, made.test, made.test_truth)
        spent = time.process_time() - began
        values = {
            "accuracy": report["accuracy"]["value"],
            "all concepts known": report["true_concepts"]["value"],
        }
        values |= {name: entry["value"] for name, entry in report["baselines"].items()}
        values |= {f"concepts, {name}": value for name, value in report["concept_accuracy"].items()}
        values |= {
            f"all concepts right, {name}": v["value"] for name, v in report["all_concepts_right"].items()
        }
        corrected_rows = replace(
            made.test, x=made.test.x[:800], labels=made.test.need_labels()[:800], names=[]
        )
        truth = replace(made.test_truth, present=made.test_truth.present[:800])
        curve = asked(model, corrected_rows, truth, policy="uncertainty", budgets=(1, 5), seed=seed)
        for which in ("curve", "random"):
            values |= {f"{which}: {p['corrected']} corrected, gain": p["gain"] for p in curve[which][1:]}
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
        print(f"seed {seed}: coupling {model.coupling}, built in {trained:.1f} CPU s, scored in {spent:.1f}, "
              f"steps {report['steps']}", flush=True)  # fmt: skip
    for name, values in rows.items():
        print(f"{name:44s} {paired(values)} %")


def discovered(folder: str, encoder: str, seed: int = 0) -> None:
    """Latents of a sparse dictionary as concepts beside text concepts at the same sparsities; how many get a name."""
    from bntools.core.artifact.reader import open_path
    from bntools.core.methods import sparse_dictionary
    from bntools.tools.cbm_build.demo.sources import write_files

    made = demo(folder, encoder, seed)
    with tempfile.TemporaryDirectory() as place:
        train = write_files(made, place, force=True)[0]
        words = [
            "sparse-code",
            train,
            "--k",
            "16",
            "--tokens",
            "200000",
            "--batch",
            "256",
            "-q",
            "-f",
            "-o",
            f"{place}/sae.safetensors",
        ]
        subprocess.run([sys.executable, "-m", "bntools", *words], check=True, stdout=subprocess.DEVNULL)
        with open_path(f"{place}/sae.safetensors") as opened:
            dictionary = sparse_dictionary.read(opened)
    sources = replace(made.sources, codes=dictionary, vocabulary=made.sources.concepts)
    for name, settings in (
        ("latents", Settings(method="dn", seed=seed)),
        ("text", Settings(per_class=PER_CLASS, seed=seed)),
    ):
        began = time.process_time()
        model, report = builders.build(sources, settings, no_progress)
        spent = time.process_time() - began
        y = class_indices(model, made.test)
        path = ", ".join(
            f"{nec}: {100 * (model.at(nec).predict(made.test.x) == y).mean():.1f}" for nec in model.heads
        )
        print(f"{name:8s} {len(model.names)} concepts, {spent:.1f} CPU s, accuracy at NEC {path} %")
        if name == "latents":
            cosines = np.array([q["cosine"] for q in report["concept_quality"]])
            named = 100 * np.mean([q["named"] for q in report["concept_quality"]])
            print(f"  named {named:.1f} %, median cosine {np.median(cosines):.2f}")
    chance = dn.nearest(
        dictionary.D, np.random.default_rng(0).normal(size=made.sources.concepts.x.shape)
    ).cosines[:, 0]
    print(f"  median cosine with as many random words: {np.median(chance):.2f}")


def order(seeds: int = 5) -> None:
    """Which of two concepts comes first, in 6 to 10 windows of noise: attention, its parts removed, mean of windows."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from support import concepts as planted

    from bntools.core.methods.cbm.inputs import Embeddings
    from bntools.core.methods.cbm.sequence import score as sequence_score
    from bntools.core.methods.cbm.sequence.inputs import read_sequences

    rows: dict[str, list[float]] = {}
    bank = Embeddings(np.eye(8, dtype=np.float32)[:6], None, planted.NAMES[:6], {}, "concepts")
    with tempfile.TemporaryDirectory() as place:
        for seed in range(seeds):
            train, test = (
                read_sequences(
                    str(planted.sequences(Path(place) / f"{seed}-{i}.safetensors", 100 * i + seed + 7, count))
                )
                for i, count in ((0, 500), (1, 400))
            )
            sources = Sources(train.rows, bank, sequences=train)
            for name, paper in (("ours", False), ("published form", True)):
                began = time.process_time()
                settings = Settings(method="motif", epochs=80, normalize=False, paper=paper, seed=seed)
                model, _ = builders.build(sources, settings, no_progress)
                print(f"seed {seed}, {name}: built in {time.process_time() - began:.1f} CPU s", flush=True)
                report = sequence_score.score(model, test)
                for key in ("accuracy", "shuffled", "uniform_attention"):
                    rows.setdefault(f"{name}, {key}", []).append(report[key]["value"])
            rows.setdefault("mean of windows", []).append(report["baselines"]["mean_of_windows"]["value"])
    for name, values in rows.items():
        print(f"{name:34s} {paired(values)} %")


def memory() -> None:
    """100,000 rows of 512, 2,000 concepts, 50 classes: peak memory of a process of its own."""
    code = (
        "import numpy as np, resource, time; from bntools.core.methods.cbm.inputs import Embeddings;"
        "from bntools.core.progress import no_progress; from bntools.tools.cbm_build.build import Sources, build;"
        "from bntools.tools.cbm_build.settings import Settings; d = np.random.default_rng(0);"
        "v = d.standard_normal((2000, 512), np.float32); y = d.integers(0, 50, 100000);"
        "x = d.standard_normal((100000, 512), np.float32) + 0.3 * v[y];"
        "b = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; t = time.process_time();"
        "build(Sources(Embeddings(x, y, [], {}, 'x'), Embeddings(v, None, [], {}, 'v')),"
        "Settings(select='all', table=(5,), l2=0.03), no_progress);"
        "print(b / 1e6, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, time.process_time() - t)"
    )
    before, peak, spent = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    print(
        f"100,000 x 512, K = 2,000: {float(peak):.2f} GB peak ({float(before):.2f} before), {float(spent):.0f} CPU s"
    )


if __name__ == "__main__":
    folder, encoder, *wanted = sys.argv[1:]
    everything = ("accuracy", "speed", "intervene", "spurious", "energies", "discovered", "order", "memory")
    for name in wanted or everything:
        print(f"-- {name}")
        if name in ("memory", "order"):
            {"memory": memory, "order": order}[name]()
        else:
            {
                "accuracy": accuracy,
                "speed": speed,
                "intervene": corrected,
                "spurious": spurious,
                "energies": energies,
                "discovered": discovered,
            }[name](folder, encoder)
    print(f"peak of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
