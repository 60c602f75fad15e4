"""What a language model loses when its hidden states are replaced by what their sparse codes stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.architecture.sites import watching
from bntools.core.errors import bad_input, usage
from bntools.core.methods.sparse_dictionary import Dictionary, Inference
from bntools.core.model.model import Model
from bntools.core.progress import Step, no_step
from bntools.core.text.tokens import open_tokenizer

WINDOW = 256
Change = Callable[[Tensor], Tensor]


def effects(
    dictionary: Dictionary, model: Model, text: str, tokens: int, *, threads: int = 1, step: Step = no_step
) -> dict[str, Any]:
    """Loss and divergence with the states at the dictionary's site replaced at all positions of a window but the first.

    Replaced by what encoder and pursuit make of them, by the mean of the training rows, and by zeros. Positions over
    the outlier limit stay as they are and are counted. KL in nats a token from the model itself, standard errors over
    windows. Raises BnError: exit 2 for a dictionary without a site in a model, 3 for another model than its own.
    """
    layer, site = dictionary.facts.get("layer"), dictionary.facts.get("site")
    if not isinstance(layer, int) or site not in ("resid", "attn", "mlp"):
        raise usage(
            f"{dictionary.label} names no layer and site of a model",
            "--model is for states of `embed --layer`",
        )
    known = dictionary.facts.get("sha256")
    if known is not None and known != model.store.sha256():
        raise bad_input(f"{model.label} is not the model {dictionary.label} was trained on")
    windows = _windows(model, text, tokens)
    built = model.build(torch.float32)
    limit = float(dictionary.facts.get("outliers", {}).get("limit", math.inf))
    kept = [0]
    changes = _changes(dictionary, limit, kept, threads)
    losses: dict[str, list[float]] = {name: [] for name in ("clean", *changes)}
    divergences: dict[str, list[float]] = {name: [] for name in changes}
    for window in windows:
        ids = torch.tensor(window)[None]
        clean = _log_probabilities(built, ids, None, (layer, site))
        losses["clean"].append(_loss(clean, ids))
        for name, change in changes.items():
            other = _log_probabilities(built, ids, change, (layer, site))
            losses[name].append(_loss(other, ids))
            divergences[name].append(float((clean.exp() * (clean - other)).sum(-1).mean()))
            step(len(window))
    return _report(losses, divergences, sum(map(len, windows)), kept[0])


def variants(dictionary: Dictionary) -> int:
    """How many passes `effects` makes besides the model's own."""
    return 4 if dictionary.inference.candidates else 3


def _windows(model: Model, text: str, tokens: int) -> list[list[int]]:
    tokenizer = open_tokenizer(model.files, model.config, model.label)
    ids = tokenizer.ids(text)[:tokens]
    bos = tokenizer.window_bos
    body = WINDOW - (bos is not None)
    windows = [([] if bos is None else [bos]) + ids[a : a + body] for a in range(0, len(ids), body)]
    windows = [window for window in windows if len(window) >= 16]
    if not windows:
        raise bad_input(f"the text has {len(ids)} tokens", "give at least a page: --text FILE")
    return windows


def _changes(dictionary: Dictionary, limit: float, kept: list[int], threads: int) -> dict[str, Change]:
    """Functions of states [1, T, d] by name."""

    def by(make: Callable[[np.ndarray], np.ndarray]) -> Change:
        def change(states: Tensor) -> Tensor:
            x = states[0].float().numpy()
            other = make(x)
            long = np.linalg.norm(x, axis=1) > limit
            kept[0] = max(kept[0], int(long[1:].sum()))
            long[0] = True
            out = np.where(long[:, None], x, other)
            return torch.from_numpy(out)[None].to(states.dtype)

        return change

    def coded(how: Inference) -> Change:
        return by(lambda x: dictionary.decode(dictionary.encode(x, how, threads), threads))

    losses = {"zero": by(np.zeros_like), "mean": by(lambda x: np.broadcast_to(dictionary.mean, x.shape))}
    losses["encoder"] = coded(Inference(0, dictionary.k))
    if dictionary.inference.candidates:
        losses["pursuit"] = coded(dictionary.inference)
    return losses


@torch.no_grad()
def _log_probabilities(model: Any, ids: Tensor, change: Change | None, place: tuple[int, str]) -> Tensor:
    options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    if change is None:
        return torch.log_softmax(model(ids, **options).logits[0].float(), -1)
    with watching(model, [place], lambda index, states: change(states), stop=False):
        return torch.log_softmax(model(ids, **options).logits[0].float(), -1)


def _loss(logs: Tensor, ids: Tensor) -> float:
    return float(-logs[:-1].gather(1, ids[0, 1:, None]).mean())


def _mean(values: list[float]) -> dict[str, float]:
    array = np.array(values)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else float("nan")
    return {"mean": float(array.mean()), "se": error}


def _report(
    losses: dict[str, list[float]], divergences: dict[str, list[float]], tokens: int, kept: int
) -> dict[str, Any]:
    clean, zero, mean = (float(np.mean(losses[name])) for name in ("clean", "zero", "mean"))
    coded = [name for name in losses if name in ("encoder", "pursuit")]
    recovered = {
        name: {
            "zero": (zero - float(np.mean(losses[name]))) / (zero - clean),
            "mean": (mean - float(np.mean(losses[name]))) / (mean - clean),
        }
        for name in coded
    }
    return {
        "tokens": tokens, "window": WINDOW, "outliers_kept": kept,
        "loss": {name: float(np.mean(values)) for name, values in losses.items()},
        "kl": {name: _mean(values) for name, values in divergences.items()}, "loss_recovered": recovered,
    }  # fmt: skip
