"""Caches of SmolLM2 at windows of 4,096 tokens: divergence and recall of a plan beside the papers and baselines.

In pieces of `--minutes`, with finished rows kept in `--work`: run it again until it prints the table. All bits are
counted; errors are over windows. What is compared ran on the same text, in the same windows.

usage: kv_compress.py MODEL [--work DIR] [--minutes 8] [--windows 4] [--context 4096] [--only NAMES | --only steps]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from bntools.core.methods.kv import score
from bntools.core.methods.kv.baselines import simulate
from bntools.core.methods.kv.cache import PlannedCache, full_layers
from bntools.core.methods.kv.plan import CachePlan, describe_model, read_plan, write_plan
from bntools.core.model.open import open_model
from bntools.core.progress import no_step
from bntools.core.text.documents import default_text
from bntools.core.text.tokens import open_tokenizer
from bntools.tools.kv_compress import calibrate, run
from bntools.tools.kv_compress.settings import Settings

PLANS = {
    "entropy 1.2": {"bits": 1.2}, "entropy 1.6": {"bits": 1.6}, "entropy 2.1": {"bits": 2.1},
    "entropy 1.6, tokens 0": {"bits": 1.6, "tokens": 0.0}, "entropy 1.2, tokens 0.5": {"bits": 1.2, "tokens": 0.5},
    "entropy 3.1": {"bits": 3.1}, "fixed 2.2": {"bits": 2.2, "code": "fixed", "exact": "0"},
    "max-kl 0.02": {"max_kl": 0.02},
}  # fmt: skip
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "rotated 3": ("rotated", {"bits": 3}), "rotated 2": ("rotated", {"bits": 2}),
    "per token 4": ("per-token", {"bits": 4}), "kivi 2": ("kivi", {"bits": 2}),
    "zipvl": ("zipvl", {}), "zipvl-evict": ("zipvl-evict", {}), "h2o 25 %": ("h2o", {}), "snapkv 25 %": ("snapkv", {}),
    "pyramidkv 25 %": ("pyramidkv", {}), "streaming 25 %": ("streaming", {}),
}  # fmt: skip


class Bench:
    """One model, a folder of finished rows, and a time by which to stop."""

    def __init__(self, model: str, work: Path, seconds: float, context: int) -> None:
        self.work, self.until, self.context = work, time.monotonic() + seconds, context
        work.mkdir(parents=True, exist_ok=True)
        source = open_model(model)
        tokenizer = open_tokenizer(source.files, source.config, source.label)
        self.ids = {kind: tokenizer.ids(default_text(kind)) for kind in ("calib", "eval")}
        self.model = source.build(torch.float32)
        self.planned = full_layers(self.model)
        self.settings = Settings(bits=2.0, context=context, calib_tokens=context)

    def late(self) -> bool:
        return time.monotonic() > self.until

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.work / f"{name}.pt"
        if not path.exists():
            torch.save(make(), path)
        return torch.load(path, weights_only=False)

    def rows(self, name: str) -> dict[str, Any]:
        path = self.work / f"{name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return {row["key"]: row["value"] for row in map(json.loads, lines)}

    def add(self, name: str, key: str, value: Any) -> None:
        with (self.work / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"key": key, "value": value}) + "\n")

    def maker(self) -> run.PlanMaker | None:
        """The calibrated model; None where the time was up before it was."""
        windows = score.windows_of(self.ids["calib"], self.context, self.context)
        plain = self.kept("observed", lambda: calibrate.observe(self.model, windows, self.planned, self.settings,
                                                                no_step))  # fmt: skip
        done, gauge = self.rows("sensitivity"), None
        for at, which in np.ndindex(len(self.planned), 2):
            key = f"{at} {which}"
            if key in done:
                continue
            if self.late():
                return None
            gauge = gauge or calibrate.LayerGauge.of(self.model, plain, self.settings)
            done[key] = gauge.measure(at, which)
            self.add("sensitivity", key, done[key])
        s = np.array([[done[f"{at} {which}"] for which in (0, 1)] for at in range(len(self.planned))])
        plain = calibrate.Calibration(plain.metrics, s, plain.references, plain.planned)
        facts = {"bntools.kv": 1, "model": describe_model(self.model), "method": "rate", "sink": 4, "recent": 32,
                 "tables": None, "predicted_kl": None, "calibration": None}  # fmt: skip
        return run.PlanMaker(self.model, plain, self.settings, facts)

    def plans(self, names: list[str]) -> dict[str, CachePlan] | None:
        maker, found = None, {}
        for name in names:
            path = self.work / f"{name}.safetensors"
            if not path.exists():
                if self.late() or (maker := maker or self.maker()) is None:
                    return None
                settings = Settings(context=self.context, calib_tokens=self.context, **PLANS[name])
                mine = run.PlanMaker(self.model, maker.calibration, settings, dict(maker.facts))
                plan = mine.best(settings.bits) if settings.bits else mine.within(float(settings.max_kl or 0))
                plan.facts["predicted_kl"] = float(np.mean(mine.divergence(plan)))
                write_plan(plan, str(path), force=True)
            found[name] = read_plan(path)
        return found

    def scored(self, names: list[str], count: int) -> dict[str, list[dict[str, Any]]] | None:
        plans = self.plans([name for name in names if name in PLANS])
        if plans is None:
            return None
        done = self.rows("scores")
        for at, window in enumerate(
            score.windows_of(self.ids["eval"], self.context, count * self.context)[:count]
        ):
            missing = [name for name in names if f"{at} {name}" not in done]
            if not missing:
                continue
            if self.late():
                return None
            exact = self.kept(f"window{at}", lambda w=window: score.reference(self.model, w, self.planned))
            for name in missing:
                if self.late():
                    return None
                if name in plans:
                    cache = score.apply_plan(plans[name], exact.prefix)
                else:
                    method, options = BASELINES[name]
                    cache = simulate(method, exact.prefix, options)
                loss = score.compare(self.model, exact, cache)
                done[f"{at} {name}"] = {"bits": cache.bits, "kl": float(loss.kl.mean()), "change": loss.change,
                                        "copy": loss.copied - exact.copied, "full": exact.copied}  # fmt: skip
                self.add("scores", f"{at} {name}", done[f"{at} {name}"])
        return {name: [done[f"{at} {name}"] for at in range(count)] for name in names}

    def loading(self) -> dict[str, float] | None:
        """CPU seconds of a prefill of one window and of loading it from a file, interleaved."""
        done = self.rows("loading")
        if "seconds" not in done:
            if self.late():
                return None
            plan = read_plan(self.work / "entropy 1.6.safetensors")
            ids = self.ids["eval"][: self.context]
            times: dict[str, list[float]] = {"prefill": [], "load": []}
            path = str(self.work / "prompt.kv.safetensors")
            cache, row = run.store_prompt(self.model, plan, ids)
            cache.save(path, row, True)
            PlannedCache.load(path, self.model).dynamic()  # compile
            for _ in range(3):
                began = time.process_time()
                with torch.no_grad():
                    self.model(row[None], logits_to_keep=1)
                times["prefill"].append(time.process_time() - began)
                began = time.process_time()
                loaded = PlannedCache.load(path, self.model)
                loaded.dynamic()
                loaded.detach()
                times["load"].append(time.process_time() - began)
            size = Path(path).stat().st_size
            self.add(
                "loading", "seconds", {name: min(values) for name, values in times.items()} | {"bytes": size}
            )
            done = self.rows("loading")
        return done["seconds"]

    def steps(self, length: int = 2048, count: int = 6) -> dict[str, float]:
        """CPU seconds a token behind so many: from packed rows, from a decoded cache, from an exact one, interleaved.

        Of a plan on 512 tokens: time depends on how many bits there are, not on where they were best given.
        """
        done = self.rows("steps")
        if "seconds" not in done:
            settings = Settings(bits=2.2, code="fixed", exact="0.01", context=512, calib_tokens=512)
            plan = self.kept("steps plan", lambda: run.make_plan(self.model, self.ids["calib"], settings))
            row = torch.tensor([self.ids["eval"][: length + count + 1]])
            packed, exact = PlannedCache.from_plan(plan, self.model), DynamicCache(config=self.model.config)
            times: dict[str, list[float]] = {"packed": [], "decoded": [], "exact": []}
            with torch.no_grad():
                for cache in (packed, exact):
                    self.model(row[:, :length], past_key_values=cache, logits_to_keep=1)
                decoded = copy.deepcopy(packed)
                for layer in decoded.coded_layers:
                    layer.steps = None
                for at in range(length, length + count + 1):
                    for name, cache in (("packed", packed), ("decoded", decoded), ("exact", exact)):
                        began = time.process_time()
                        self.model(row[:, at : at + 1], past_key_values=cache)
                        times[name].append(time.process_time() - began)
            packed.detach()
            medians = {
                name: float(np.median(values[1:])) for name, values in times.items()
            }  # the first compiles
            self.add("steps", "seconds", medians)
            done = self.rows("steps")
        return done["seconds"]


def mean(values: list[float]) -> str:
    spread = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{np.mean(values):.4f} ± {spread:.4f}"


def bits_at(scores: dict[str, list[dict[str, Any]]], kl: float) -> float:
    """Bits of `entropy` with weights of 0.25 at a divergence, on the line of ln KL through its nearest plans."""
    points = sorted(
        (float(np.mean([row["bits"] for row in rows])), math.log(np.mean([row["kl"] for row in rows])))
        for name, rows in scores.items() if name in ("entropy 1.2", "entropy 1.6", "entropy 2.1", "entropy 3.1")
    )  # fmt: skip
    for (b0, k0), (b1, k1) in itertools.pairwise(points):
        if k0 >= math.log(kl) >= k1 or (b1, k1) == points[-1]:
            return b0 + (math.log(kl) - k0) / (k1 - k0) * (b1 - b0)
    return math.nan


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--work", type=Path, default=Path("kv-bench"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--only", help="Comma-separated names of rows.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(given.model, given.work, 60 * given.minutes, given.context)
    if given.only in (None, "steps"):
        seconds = bench.steps()
        print(f"a token behind 2,048 of fixed 2.2: {seconds['packed']:.3f} CPU s from packed rows, "
              f"{seconds['decoded']:.3f} decoded: {seconds['packed'] / seconds['decoded']:.2f}; "
              f"{seconds['exact']:.3f} with an exact cache")  # fmt: skip
    if given.only == "steps":
        return
    names = given.only.split(",") if given.only else [*PLANS, *BASELINES]
    scores = bench.scored(names, given.windows)
    if scores is None:
        print("more to do: run it again")
        return
    print(f"{given.windows} windows of {given.context}, 192 tokens scored in each")
    for name, rows in scores.items():
        print(f"{name:26s} {np.mean([r['bits'] for r in rows]):6.3f} bits  KL {mean([r['kl'] for r in rows])}  "
              f"copy above full {mean([r['copy'] for r in rows])}")  # fmt: skip
    if {"rotated 3", "entropy 1.2", "entropy 2.1"} <= set(scores):
        kl = float(np.mean([row["kl"] for row in scores["rotated 3"]]))
        print(f"bits at the KL of rotated 3-bit: {bits_at(scores, kl) / 3.25:.3f} of 3.25")
    if {"rotated 2", "fixed 2.2"} <= set(scores):
        ratio = [np.mean([row["kl"] for row in scores[name]]) for name in ("fixed 2.2", "rotated 2")]
        print(f"KL of fixed 2.2 over rotated 2-bit: {ratio[0] / ratio[1]:.3f}")
    if "max-kl 0.02" in scores:
        predicted = read_plan(given.work / "max-kl 0.02.safetensors").facts["predicted_kl"]
        measured = float(np.mean([row["kl"] for row in scores["max-kl 0.02"]]))
        print(
            f"--max-kl 0.02: predicted {predicted:.4f}, on other text {measured:.4f}: {measured / predicted:.2f}"
        )
    seconds = bench.loading()
    if seconds is not None:
        print(f"prefill {seconds['prefill']:.2f} CPU s, load {seconds['load']:.2f}: "
              f"{seconds['load'] / seconds['prefill']:.3f}; {seconds['bytes']:,} bytes")  # fmt: skip


if __name__ == "__main__":
    main()
