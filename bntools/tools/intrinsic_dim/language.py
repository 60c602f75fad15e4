"""Fine-tuning a language model on documents: the loss is both what is minimized and what is scored."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.datasets import networks
from bntools.core.errors import bad_input, usage
from bntools.core.model.model import Model
from bntools.core.model.open import open_model
from bntools.core.text.documents import read_documents
from bntools.core.text.tokens import open_tokenizer
from bntools.kernels.counter_random import permutation
from bntools.tools.intrinsic_dim.problem import Gradients, Source

_SPLIT_STREAM = 14
_BATCH = 8
_HELD = 10
"""One window in so many is held out, and as many again are the test set."""


class Language(Gradients):
    """Windows of text; the score is minus the mean loss in nats a token.

    The target is a share of the way from the model as it is to the model fine-tuned in all parameters chosen.
    """

    scored = "minus loss"
    spans_from_floor = True
    base_rate = 1e-4

    def __init__(self, source: Source, data: str) -> None:
        if source.shuffle or not data.endswith((".jsonl", ".txt")):
            what = f"--model {source.model} is a language model, which learns from .jsonl or .txt in order, not {data}"
            raise usage(what, "for labelled data: --model fc:200,200, lenet or FILE.py:FUNCTION")
        self.source, self.batch = source, source.batch or _BATCH
        self.base: Model = open_model(source.model)
        windows = self._windows(read_documents(data))
        order = permutation(source.seed, _SPLIT_STREAM, len(windows))
        held = max(len(windows) // _HELD, 1)
        train = order[2 * held :][: max(round(source.share * (len(windows) - 2 * held)), 1)]
        self._rows = {"validation": windows[order[:held]], "test": windows[order[held : 2 * held]],
                      "train": windows[train]}  # fmt: skip
        self.examples = len(train)
        self.batch = min(self.batch, self.examples)
        digest = hashlib.sha256(windows.tobytes()).hexdigest()
        self.facts = {"data": digest, "examples": self.examples, "base": self.base_digest}

    @cached_property
    def base_digest(self) -> str:
        return self.base.store.sha256()

    @cached_property
    def _flat(self) -> tuple[networks.FlatParameters, torch.Tensor]:
        """The model, one for all runs, and its own weights as far as they are trained."""
        flat = networks.FlatParameters(self.base.build(torch.float32), self.source.modules)
        return flat, flat.theta.clone()

    def _windows(self, documents: list[str]) -> NDArray[np.int64]:
        """Tokens of all documents, each ended by EOS where the model has one, cut into windows: [n, window]."""
        tokenizer = open_tokenizer(self.base.files, self.base.config, self.base.label)
        ids: list[int] = []
        for document in documents:
            ids += tokenizer.ids(document) + ([tokenizer.eos] if tokenizer.eos is not None else [])
        window = min(self.source.window, int(self.base.config.get("max_position_embeddings") or 1 << 30))
        count = len(ids) // window
        if count < 10:
            raise bad_input(
                f"{len(ids)} tokens are {count} windows of {window}, too few", "--window 32, or more text"
            )
        return np.array(ids[: count * window], np.int64).reshape(count, window)

    def flat(self, seed: int) -> networks.FlatParameters:
        """The model with its own weights, whatever the seed: one object, what a run did to it is undone."""
        flat, start = self._flat
        flat.theta.copy_(start)
        return flat

    def loss(self, flat: networks.FlatParameters, rows: Any) -> torch.Tensor:
        flat.module.train()
        return self._loss(flat, self._rows["train"][rows])

    @torch.no_grad()
    def score(self, flat: networks.FlatParameters, split: str) -> float:
        flat.module.eval()
        rows = self._rows[split]
        parts = [rows[a : a + self.batch] for a in range(0, len(rows), self.batch)]
        return -sum(float(self._loss(flat, part)) * len(part) for part in parts) / len(rows)

    @staticmethod
    def _loss(flat: networks.FlatParameters, rows: NDArray[np.int64]) -> torch.Tensor:
        ids = torch.from_numpy(rows)
        logits = flat.module(input_ids=ids, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    def network_facts(self) -> dict[str, Any]:
        """What an artifact must say to find the model it fine-tunes."""
        path = (
            str(self.base.path) if self.base.path and not self.base.label.endswith(":") else self.base.label
        )
        return {"base": path, "sha256": self.base_digest, "modules": self.source.modules}
