"""Calibration tokens that a model makes itself, for where there is no text: short pieces sampled from it."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import torch
from torch import Tensor

from bntools.core.architecture import inputs, linears
from bntools.core.blockwise.blocks import BATCH_TOKENS, Batch, Blocks
from bntools.core.errors import bad_input
from bntools.core.model.model import Model
from bntools.core.progress import Step, no_step
from bntools.core.system.threads import single_threaded
from bntools.core.text.tokens import Tokenizer, open_tokenizer

PIECE = 8
"""Tokens of a piece: the first is drawn by its rank, each other from the model, given those before it."""
_OFFSET = 2.7  # of the Zipf-Mandelbrot law p(rank) ~ 1 / (rank + 2.7), ranks from 0
LOGITS_BYTES = 16 << 20  # of logits of a batch; seven times as much exists while a thread draws from them


def shape(source: Model, tokens: int, window: int = 512) -> tuple[int, int]:
    """How many windows of what length hold about `tokens`, none longer than the model has positions for."""
    window = inputs.longest_window(source.config, window)
    return max(1, tokens // window), window


def made_windows(
    source: Model, count: int, window: int, seed: int = 0, device: str = "cpu", step: Step = no_step
) -> Tensor:
    """Windows of token ids made by a causal language model: [count, window] int64.

    A window is pieces of `PIECE` tokens one after another, which know nothing of each other, as the documents of a
    training text that is packed into windows do not. The first id of a piece is drawn by Zipf's law of its rank in
    the vocabulary, which merges leave in about the order of frequency; each following one is sampled from the
    model's own distribution (as LLM-QAT does, arXiv 2305.17888, for whole documents). Special ids are never drawn;
    BOS, where the model wants one, starts every window. The pieces grow together by one token a round, a pass
    through the blocks with one of them in memory, without a cache: (PIECE - 1) / 2 passes over the tokens in all.
    step: called with the tokens that each round adds.
    The same ids for the same seed, whatever the number of threads. Raises BnError (exit 3) where the model has no
    output head, or as `Blocks` does.
    """
    if not makes(source):
        raise bad_input(f"{source.label} is no causal language model, so it makes no tokens", "--calib FILE")
    tokenizer = _tokenizer(source)
    bos = tokenizer.window_bos if tokenizer else None
    body = window - (bos is not None)
    allowed = ordinary(source, tokenizer)
    drawn = torch.Generator().manual_seed(seed)
    pieces = _first(allowed, -(-count * body // PIECE), drawn)[:, None]
    said = _Sampler(source, _behind(bos, pieces), allowed, device)
    for _ in range(PIECE - 1):
        uniform = torch.rand(len(pieces), generator=drawn, dtype=torch.float64)
        said.feed(_behind(bos, pieces))
        pieces = torch.cat([pieces, said.next(uniform)[:, None]], 1)
        step(len(pieces))
    return _behind(bos, pieces.flatten()[: count * body].view(count, body))


def _behind(bos: int | None, rows: Tensor) -> Tensor:
    """Rows of ids, each behind BOS where there is one."""
    return rows if bos is None else torch.cat([rows.new_full((len(rows), 1), bos), rows], 1)


def makes(source: Model) -> bool:
    """Whether a model is a causal language model, which can be sampled from."""
    pairs = source.config.get("is_encoder_decoder") and linears.hf_config(source.config).is_encoder_decoder
    return bool(linears.model_class(source.config).can_generate()) and not pairs


def ordinary(source: Model, tokenizer: Tokenizer | None) -> Tensor:
    """Ids of text, in order: in the tokenizer's vocabulary, none that was added to it, no BOS, EOS or padding."""
    size = inputs.vocabulary(source.config) or int(source.config["vocab_size"])
    special: set[int] = set()
    for name in ("bos", "eos", "pad"):
        value = source.config.get(f"{name}_token_id")
        special |= {one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)}
    if tokenizer:
        added = tokenizer.inner.get_added_tokens_decoder()
        special |= set(added) | {one for one in (tokenizer.bos, tokenizer.eos) if one is not None}
        size = min(size, tokenizer.inner.get_vocab_size())
    return torch.tensor([index for index in range(size) if index not in special])


def _tokenizer(source: Model) -> Tokenizer | None:
    known = "tokenizer.json" in source.files
    return open_tokenizer(source.files, source.config, source.label) if known else None


def _first(allowed: Tensor, count: int, drawn: torch.Generator) -> Tensor:
    """`count` ids by Zipf's law of their ranks among those allowed."""
    weights = 1 / (torch.arange(len(allowed), dtype=torch.float64) + _OFFSET)
    return allowed[choose(weights[None], torch.rand(count, generator=drawn, dtype=torch.float64))]


def choose(weights: Tensor, uniform: Tensor) -> Tensor:
    """Of each row of weights [n or 1, m] >= 0 the index where its running sum passes the share `uniform` [n]."""
    sums = weights.double().cumsum(-1)
    level = (uniform * sums[:, -1])[:, None]
    sums = sums.expand(len(level), -1).contiguous()
    return torch.searchsorted(sums, level, right=True)[:, 0].clamp(max=weights.shape[1] - 1)


def _cut(count: int, size: int) -> list[Batch]:
    return [Batch(start, min(start + size, count)) for start in range(0, count, size)]


class _Sampler(Blocks):
    """Blocks that draw a token for every piece given all of it; then they are fed longer pieces."""

    def __init__(self, source: Model, pieces: Tensor, allowed: Tensor, device: str) -> None:
        super().__init__(source, pieces, device=device)
        self.allowed = allowed
        self.local = threading.local()
        self.partial = "logits_to_keep" in inspect.signature(type(self.model).forward).parameters

    def feed(self, pieces: Tensor) -> None:
        """Begin anew with other pieces, as many, in the same tree of modules: to build that takes a second."""
        self.windows, self._calls = pieces, {}
        size = max(1, BATCH_TOKENS // pieces.shape[1])
        self.batches = _cut(len(pieces), size)
        with self.outer():
            self._record_all()
            self.hidden = self._enter()

    def next(self, uniform: Tensor) -> Tensor:
        """The token after each piece [n] int64, for shares `uniform` [n] of the running sum of probabilities."""
        for _ in self:
            self.advance()
        count, length = self.windows.shape
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        size = max(1, LOGITS_BYTES // (4 * vocabulary * (1 if self.partial else length)))
        with self.outer(head=True), self.around(self._stand_in), single_threaded() as (pool, _):
            parts = pool.map(lambda batch: self._sampled(batch, uniform), _cut(count, size))
            return torch.cat(list(parts))

    def _stand_in(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if index == len(self) - 1:
            return self.local.last
        return args[0] if args else kwargs["hidden_states"]

    @torch.no_grad()
    def _sampled(self, batch: Batch, uniform: Tensor) -> Tensor:
        self.local.last = self.hidden.get(batch.start, batch.stop).to(self.device)
        ids = self.windows[batch.start : batch.stop].to(self.device)
        more: dict[str, Any] = {"logits_to_keep": 1} if self.partial else {}
        if hasattr(self.model.config, "use_cache"):
            more["use_cache"] = False
        logits = self.model(ids, **more).logits[:, -1].float().cpu()
        shares = logits[:, self.allowed].softmax(-1)
        return self.allowed[choose(shares, uniform[batch.start : batch.stop])]
