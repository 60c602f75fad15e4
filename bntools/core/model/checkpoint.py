"""Whether a checkpoint is whole: its tensors held against what the architecture needs, from headers alone."""

from __future__ import annotations

import re

import torch

from bntools.core.architecture import linears
from bntools.core.errors import bad_input
from bntools.core.model.model import Model

HEAD = "lm_head.weight"


def check(model: Model) -> None:
    """Raises BnError (exit 3) naming the first tensor that is missing or whose shape does not fit the config.

    Tools that read tensor by tensor call it once; building the whole model finds the same. Parameters that share their
    values need one tensor. Where the library merges or cuts tensors on loading, their weights are counted.
    """
    skeleton = linears.skeleton(model.config)
    rename, free = linears.renamer(skeleton), linears.cut_on_loading(skeleton)
    held: dict[str, list[str]] = {}
    for name in model.entries:
        held.setdefault(rename(name), []).append(name)
    state = skeleton.state_dict(keep_vars=True)
    present = {id(state[target]) for target in held if target in state}
    ignored = [*(skeleton._keys_to_ignore_on_load_missing or ()), *free]
    for target, value in state.items():
        if target in held:
            if not any(re.search(pattern, target) for pattern in free):
                _check_size(model, target, held[target], value)
        elif id(value) not in present and not any(re.search(pattern, target) for pattern in ignored):
            raise bad_input(
                f"{model.label}: tensor {target!r} is missing", "the checkpoint is not whole: get it again"
            )


def _check_size(model: Model, target: str, names: list[str], value: torch.Tensor) -> None:
    weights = sum(model.entries[name].numel for name in names)
    shapes = [tuple(model.entries[name].shape) for name in names]
    if weights == value.numel():
        return
    raise bad_input(
        f"{model.label}: {names[0]!r} has the shape {list(shapes[0])}, its config wants {list(value.shape)}"
        if len(names) == 1
        else f"{model.label}: {len(names)} tensors make up {target!r}, {weights:,} weights of {value.numel():,}",
        "the checkpoint is not whole, or the config is of another model",
    )


def has_own_head(model: Model, name: str = HEAD) -> bool:
    """Whether an output head is stored that is not, bit for bit, the input embedding, whatever the config says."""
    if name not in model.entries:
        return False
    skeleton = linears.skeleton(model.config)
    inner = skeleton.get_input_embeddings()
    path = next(path for path, module in skeleton.named_modules() if module is inner)
    embedding = f"{path}.weight"
    if embedding not in model.entries or model.entries[embedding].shape != model.entries[name].shape:
        return True
    one, other = model.tensor(name), model.tensor(embedding)
    return one.dtype != other.dtype or not torch.equal(one, other)
