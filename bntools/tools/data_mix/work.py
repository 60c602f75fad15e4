"""What the command asks for: a table read, or pilots planned and made, then the report and its picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bntools.core.artifact.reader import parse_json
from bntools.core.errors import usage
from bntools.core.progress import Step
from bntools.core.work.folder import digest_of_json
from bntools.core.work.shards import Shard
from bntools.tools.data_mix.pilots import execute, external, plan, read
from bntools.tools.data_mix.pilots.execute import HeadChoice, Train
from bntools.tools.data_mix.report import Known, fitted_and_question, mix_report
from bntools.tools.data_mix.runs.read import Reading, from_records, read_runs
from bntools.tools.data_mix.runs.runs import Runs
from bntools.tools.data_mix.settings import Settings, assignments


def settings_of(given: dict[str, Any], seed: int) -> Settings:
    """The settings of the command's options. Raises BnError (exit 2)."""
    methods = tuple(dict.fromkeys(word.strip() for word in given["methods"].split(",") if word.strip()))
    plain = {name: given[name] for name in
             ("at", "compare", "budget", "slope", "following", "least_gain", "level", "confidence")}  # fmt: skip
    return Settings(
        **plain, methods=methods or ("joint",), caps=assignments("--max", given["caps"]),
        prices=_prices(given["prices"]), seed=seed,
    )  # fmt: skip


def _prices(text: str | None) -> dict[str, float]:
    if text is None:
        return {}
    if not os.path.exists(text):
        return assignments("--prices", (text,))
    with open(text, "rb") as file:
        prices = parse_json(file.read(), dict, text)
    for name, value in prices.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise usage(f"{text}: the price of {name} is no number", '{"web": 1, "code": 2.5}')
    return prices


def _reading(given: dict[str, Any]) -> Reading:
    return Reading(given["kind"], given["normalize"], given["allow_failed"], given["higher"])


def table(source: str, given: dict[str, Any]) -> Runs:
    """Runs of a file."""
    return read_runs(source, _reading(given))


@dataclass(frozen=True)
class Job:
    """Pilots of sources: what each is, what trains it, where results are kept; pool: sources read, if by a head."""

    pilots: list[plan.Pilot]
    train: Train
    kept: plan.Kept
    counts: list[int]
    reading: Reading
    pool: read.Pool | None
    transport: Any = None

    def cost(self) -> dict[str, Any]:
        made = sum(self.kept.get(pilot) is not None for pilot in self.pilots)
        return {
            "pilots": len(self.pilots), "made_already": made, "sources": len(self.counts),
            "rows_to_train_on": sum(p.n for p in self.pilots), "largest_pilot": max(p.n for p in self.pilots),
        }  # fmt: skip

    def part(self, shard: Shard, step: Step) -> dict[str, Any]:
        count = self._make(shard, step)
        return {"kind": "data-mix-part", "part": str(shard), "pilots": count, "of": len(self.pilots)}

    def runs(self, step: Step, made: bool) -> Runs:
        """All runs, those not kept made first unless they all should be there."""
        if not made:
            self._make(None, step)
        return from_records(enumerate(execute.records(self.pilots, self.kept), 1), self.reading)

    def _make(self, part: Shard | None, step: Step) -> int:
        return execute.make(
            self.pilots, self.train, self.kept, part=part, step=step, allow_failed=self.reading.allow_failed
        )

    def known(self) -> Known:
        """Sizes of the sources, and with --transport the distance, its square root the input of the joint law."""
        sizes = np.array(self.counts, float)
        if self.transport is None or self.pool is None:
            return Known(sizes)
        from bntools.tools.data_mix.pilots.transport import planes

        transport = planes(self.pool.sources, self.pool.validation, self.transport)
        return Known(sizes, transport, lambda weights: transport(weights)[0][:, None])


def pilots(paths: Sequence[str], given: dict[str, Any], seed: int) -> Job:
    """The job of pilot runs. Raises BnError: exit 2 for options that do not fit, 3 for sources that do not."""
    if (given["shard"] or given["gather"]) and not given["work"]:
        raise usage("--shard and --gather need the folder of the pilots", "--work pilots/")
    files = read.source_files(paths)
    kept = plan.Kept(given["work"])
    if given["train"]:
        external.check(given["train"])
        if given["transport"]:
            raise usage("--transport needs features and a built-in head", "drop --transport or --train")
        counts, pool = read.row_counts(files), None
        train = external.command_trainer(given["train"], files, counts, given["kind"])
        trainer: dict[str, Any] = {"train": given["train"], "kind": given["kind"], "files": _sums(files)}
    else:
        if given["val"] is None:
            raise usage("no --val", "--val val.safetensors with x and y, or --train COMMAND")
        if given["val"] in files:
            files.remove(given["val"])
        pool = read.read_pool(files, given["val"])
        counts = [len(source) for source in pool.sources]
        choice = HeadChoice(given["head"], given["l2"], given["score"])
        train = execute.head_trainer(pool, choice)
        trainer = {"head": list(choice), "files": pool.digest}
    planned = plan.plan(read.names_of(files), given["sizes"], given["runs"], seed=seed, trainer=trainer)
    transport = None
    if given["transport"]:
        from bntools.tools.data_mix.pilots.transport import Settings as Transport

        transport = Transport(label=given["label_cost"], seed=seed)
    return Job(planned, train, kept, counts, _reading({**given, "kind": None}), pool, transport)


def _sums(files: Sequence[str]) -> str:
    """A digest of names and sizes: files of an own trainer may be too large to hash for every part."""
    return digest_of_json({path: os.stat(path).st_size for path in files})


def report(runs: Runs, settings: Settings, known: Known | None) -> dict[str, Any]:
    """The report; --at of the largest run where none is asked for."""
    return mix_report(runs, settings, known or Known())


def draw(runs: Runs, settings: Settings, known: Known | None, told: dict[str, Any], path: str) -> None:
    """The picture of a report."""
    from bntools.tools.data_mix import plot
    from bntools.tools.data_mix.choose.simplex import candidates

    fitted, _ = fitted_and_question(runs, settings, known or Known())
    mixtures = candidates(len(runs.sources))
    value = fitted.expected(mixtures, np.full(len(mixtures), float(told["at"])))
    if runs.kind == "accuracy":
        value = 1 - value
    plot.draw(told, (mixtures, value), np.unique(runs.weights, axis=0), path)
