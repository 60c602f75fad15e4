"""What the output of a model minds: second moments of the inputs and weights of the outputs of every matrix."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bntools.core.architecture import linears
from bntools.core.importance import metric
from bntools.core.importance.fisher_sweep import Sweep
from bntools.core.model.model import Model


class FisherMoments(NamedTuple):
    """The loss of an error E of W [out, in] is taken as sum_i rows_i (E B E^T)_ii / 2, in nats a token.

    inputs: B [in, in]. rows [out]. Both float32 (see `core.metric`).
    """

    inputs: Tensor
    rows: Tensor


def embeddings(model: Model) -> dict[str, tuple[bool, bool]]:
    """Tensors of the input embedding and the output head, each (is head, is input); one where they are tied."""
    skeleton = linears.skeleton(model.config)
    inner, head = skeleton.get_input_embeddings(), skeleton.get_output_embeddings()
    paths = {id(module): path for path, module in skeleton.named_modules()}
    names = [f"{paths[id(module)]}.weight" for module in (inner, head) if module is not None]
    names = [name for name in names if name in model.entries]
    if len(names) < 2:
        return dict.fromkeys(names, (head is not None, True))
    return {names[0]: (False, True), names[1]: (True, False)}


def sweep_tokens(model: Model, windows: Tensor) -> int:
    """Tokens that a sweep's progress counts: every block, forward and back."""
    return (
        2 * windows.numel() * int(model.config.get("num_hidden_layers") or model.config.get("n_layer") or 1)
    )


def moments(
    model: Model, wanted: Collection[str], windows: Tensor, *, embedding: bool, seed: int, device: str,
    step: Callable[[int], None],
) -> Iterator[tuple[str, FisherMoments]]:  # fmt: skip
    """The moments of the wanted linear weights by one sweep, the last block first, then of embedding and head.

    windows: [n, L] token ids; all of them go forward and back. A wanted weight that
    lies in no block is left out.
    """
    sweep = Sweep(model, windows, seed=seed, mixed=True, device=device, step=step)
    for _, block in sweep:
        for name, moment in block.items():
            if name in wanted:
                yield name, FisherMoments(*metric.linear_moments(moment))
    if embedding:
        counts = torch.bincount(windows.flatten(), minlength=len(sweep.head.variance))
        for name, used in embeddings(model).items():
            shape = model.entries[name].shape
            moment = metric.embedding_moments(sweep.head, sweep.first, counts, used=used, shape=shape)
            yield name, FisherMoments(*moment)
