"""What is to be learned, from the settings alone, so that every worker process can make it for itself."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from bntools.core.datasets import labelled, networks
from bntools.core.errors import usage
from bntools.kernels.projections import projections
from bntools.kernels.projections.structure_aware import Said
from bntools.tools.intrinsic_dim.descend import Direct, Subspace, descend
from bntools.tools.intrinsic_dim.runs import Job, Outcome

SAID = "said"
AUTO = "auto"


@dataclass(frozen=True)
class Source:
    """What is learned by what: everything that decides the outcome of a run besides the run's own numbers.

    data: a path, or None with `env`. model: `fc:...`, `lenet`, FILE.py:FUNCTION or a model directory. projection: a
    kind, `auto` or `said`. shuffle: None, `labels` or `pixels`. share: of the training rows. batch and window: None
    for the default.
    """

    model: str
    data: str | None = None
    env: str | None = None
    projection: str = AUTO
    modules: str | None = None
    shuffle: str | None = None
    share: float = 1.0
    epochs: float = 2.0
    batch: int | None = None
    window: int = 128
    seed: int = 0


class Problem(Protocol):
    """Runs jobs. size: D. spans_from_floor: the target is a share of the way from theta_0's score to the baseline's."""

    size: int
    scored: str
    spans_from_floor: bool
    base_rate: float
    facts: dict[str, Any]

    @property
    def steps(self) -> int:
        """Steps of a whole run."""
        ...

    def run(self, job: Job, start: Any = None) -> Outcome: ...

    def projection(self, dim: int, seed: int) -> Any: ...


def identity(source: Source, problem: Problem) -> str:
    """Digest of all that runs of one ledger must have in common."""
    parts = {**asdict(source), "facts": problem.facts, "version": projections.VERSION}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def open_problem(source: Source) -> Problem:
    """The problem that the settings describe. Raises BnError: exit 2 for names nothing answers to, 3 for bad data."""
    if source.env is not None:
        from bntools.tools.intrinsic_dim.control import Control

        return Control(source)
    if source.data is None:
        raise usage(
            "no --data and no --env", "bntools fetch mnist -o mnist/; bntools intrinsic-dim --data mnist/"
        )
    if networks.is_named(source.model) or source.model.rpartition(":")[0].endswith(".py"):
        return Classification(source, source.data)
    from bntools.tools.intrinsic_dim.language import Language

    return Language(source, source.data)


class Gradients:
    """What classification and language problems share: a module as a flat vector, trained by `descend`."""

    source: Source
    batch: int
    facts: dict[str, Any]
    examples: int

    def flat(self, seed: int) -> networks.FlatParameters:
        raise NotImplementedError

    @cached_property
    def size(self) -> int:
        return self.flat(self.source.seed).size

    @cached_property
    def layers(self) -> list[tuple[int, int]]:
        return self.flat(self.source.seed).layers()

    @property
    def kind(self) -> str:
        """The projection, or what SAID is built on."""
        asked = self.source.projection
        return projections.default_kind(self.size) if asked in (AUTO, SAID) else asked

    @property
    def steps(self) -> int:
        """Steps of a whole run."""
        return max(round(self.source.epochs * max(self.examples // self.batch, 1)), 1)

    def projection(self, dim: int, seed: int) -> Any:
        """P for this many numbers. Raises BnError (exit 2) where SAID has more layers than that."""
        if self.source.projection != SAID:
            return projections.make(self.kind, self.size, dim, seed, torch.get_num_threads())
        if dim <= len(self.layers):
            what = (
                f"--projection said has one number for each of {len(self.layers)} layers: {dim} are too few"
            )
            raise usage(what, f"--dims {2 * len(self.layers)} or more")
        inner = projections.make(self.kind, self.size, dim - len(self.layers), seed, torch.get_num_threads())
        return Said(inner, self.layers)

    def run(self, job: Job, start: Any = None) -> Outcome:
        """Train once; start is (dimension, end point) of a run to continue in a wider subspace."""
        return self.trained(job, start)[0]

    def trained(self, job: Job, start: Any = None) -> tuple[Outcome, networks.FlatParameters]:
        """A run from the seed's own theta_0, P and order of examples, and the network it ends with."""
        torch.manual_seed(job.seed)
        flat = self.flat(job.seed)
        if job.dim is None:
            return descend(self, flat, Direct(flat), job, self.batch, self.steps), flat
        projection = self.projection(job.dim, job.seed)
        point = None
        if start is not None:
            narrow, values = start
            point = self.projection(narrow, job.seed).lift(values, projection)
        mover = Subspace(flat, projection, point)
        return descend(self, flat, mover, job, self.batch, self.steps), flat

    def loss(self, flat: networks.FlatParameters, rows: Any) -> torch.Tensor:
        raise NotImplementedError

    def score(self, flat: networks.FlatParameters, split: str) -> float:
        raise NotImplementedError

    def held_loss(self, flat: networks.FlatParameters) -> float | None:
        """Loss on the held-out data; None where the score says as much."""
        return None


_SCORED = 1000  # held-out rows at once


class Classification(Gradients):
    """Rows with a label: cross entropy is minimized, accuracy is the score."""

    scored = "accuracy"
    spans_from_floor = False
    base_rate = 1e-3

    def __init__(self, source: Source, data: str) -> None:
        self.source, self.batch = source, source.batch or 128
        read = labelled.read(data, source.seed)
        if source.shuffle == "labels":
            read = labelled.shuffle_labels(read, source.seed)
        elif source.shuffle == "pixels":
            read = labelled.shuffle_pixels(read, source.seed)
        self.data = labelled.first_rows(read, source.share) if source.share < 1 else read
        self.examples = len(self.data.train)
        self._splits = {"validation": self.data.validation, "test": self.data.test}
        self._build = None if networks.is_named(source.model) else networks.from_file(source.model)
        networks.check_output(
            self.module(source.seed).eval(), self._inputs(self.data.train.x[:2]), read.classes
        )
        self.facts = {"data": read.sha256, "examples": self.examples, "code": self._code_digest()}

    @property
    def guessing(self) -> tuple[float, int]:
        """Accuracy of always naming the largest class of the test data, and their number of rows."""
        labels = self.data.test.y
        return float(np.bincount(labels).max() / len(labels)), len(labels)

    def _code_digest(self) -> str | None:
        if self._build is None:
            return None
        path = self.source.model.rpartition(":")[0]
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def module(self, seed: int) -> torch.nn.Module:
        """The network with its starting weights."""
        if self._build is None:
            module = networks.named(self.source.model, self.data.shape, self.data.classes)
            networks.initialize(module, seed)
            return module
        torch.manual_seed(seed)
        return copy.deepcopy(self._build(self.data.shape, self.data.classes))

    def flat(self, seed: int) -> networks.FlatParameters:
        return networks.FlatParameters(self.module(seed), self.source.modules)

    def _inputs(self, x: np.ndarray) -> torch.Tensor:
        return networks.standardized(x, self.data.mean, self.data.std)

    def loss(self, flat: networks.FlatParameters, rows: Any) -> torch.Tensor:
        part = self.data.train.at(rows)
        flat.module.train()
        return torch.nn.functional.cross_entropy(flat.module(self._inputs(part.x)), torch.from_numpy(part.y))

    def score(self, flat: networks.FlatParameters, split: str) -> float:
        return networks.accuracy(flat.module, self._splits[split], self.data.mean, self.data.std)

    @torch.no_grad()
    def held_loss(self, flat: networks.FlatParameters) -> float | None:
        """Mean cross entropy: it tells runs apart whose accuracies are equal, as all are that learned nothing."""
        held, total = self._splits["validation"], 0.0
        flat.module.eval()
        for start in range(0, len(held), _SCORED):
            part = held.at(np.arange(start, min(start + _SCORED, len(held))))
            logits, labels = flat.module(self._inputs(part.x)), torch.from_numpy(part.y)
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        return total / len(held)

    def network_facts(self) -> dict[str, Any]:
        """What an artifact must say to make the network again."""
        data = self.data
        return {"spec": self.source.model, "shape": list(data.shape), "classes": data.classes, "mean": data.mean,
                "std": data.std, "modules": self.source.modules}  # fmt: skip
