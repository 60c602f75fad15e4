"""Windows of a text scored apart, and their tokens joined."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bntools.core.errors import bad_input
from bntools.core.model.identity import source_identity
from bntools.core.model.model import Model
from bntools.core.work import array_parts
from bntools.core.work.folder import identity
from bntools.core.work.shards import Shard
from bntools.tools.eval.text.divergence import Divergence
from bntools.tools.eval.text.perplexity import Losses
from bntools.tools.eval.text.protocols import Corpus

KIND = "eval-part"
_TOKENS = ("kl", "agree", "delta", "nll", "reference_nll")


@dataclass(frozen=True)
class Scored:
    """What was scored, by which the parts know each other: model, reference, text in windows, type."""

    model: Model
    reference: Model | None
    corpus: Corpus
    dtype: torch.dtype

    def identity(self) -> dict[str, Any]:
        windows = json.dumps([(window.ids, window.first) for window in self.corpus.windows])
        against = None if self.reference is None else source_identity(self.reference, times=False)
        return identity(
            "eval", source_identity(self.model, times=False), reference=against, dtype=str(self.dtype),
            windows=hashlib.sha256(windows.encode()).hexdigest(),
        )  # fmt: skip

    def share(self, shard: Shard) -> Corpus:
        """The windows of part I of N."""
        mine = shard.of([window.scored for window in self.corpus.windows])
        return replace(self.corpus, windows=self.corpus.windows[mine.start : mine.stop])

    def write(
        self, shard: Shard, place: tuple[str, bool], sums: Losses | Divergence | None, seconds: float
    ) -> dict[str, Any] | None:
        """Write a part; found: None for a part without windows. Returns the manifest."""
        arrays = {"seconds": np.array([seconds])}
        if isinstance(sums, Losses):
            arrays["nll"] = sums.nll.numpy()
        elif sums is not None:
            values = (sums.kl, sums.agree, sums.delta, sums.losses.nll, sums.reference.nll)
            arrays |= {name: value.numpy() for name, value in zip(_TOKENS, values, strict=True)}
        return array_parts.write(
            place[0], KIND, shard, identity=self.identity(), arrays=arrays, force=place[1]
        )

    def read(self, paths: Sequence[str]) -> tuple[Losses | Divergence, float]:
        """All tokens, and the seconds their scoring took. Raises BnError (exit 3) where parts are missing."""
        parts = array_parts.read(paths, KIND, self.identity())
        names = ("nll",) if self.reference is None else _TOKENS
        arrays = {name: torch.from_numpy(array_parts.joined(parts, name)) for name in names}
        if len(arrays["nll"]) != self.corpus.tokens:
            raise bad_input(f"{len(arrays['nll'])} tokens in the parts, not {self.corpus.tokens}")
        sizes = [window.scored for window in self.corpus.windows]
        seconds = sum(float(part["seconds"][0]) for part in parts)
        losses = Losses(arrays["nll"], sizes)
        if self.reference is None:
            return losses, seconds
        theirs = Losses(arrays["reference_nll"], sizes)
        return Divergence(arrays["kl"], arrays["agree"], arrays["delta"], losses, theirs), seconds
