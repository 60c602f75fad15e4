"""A transformers model whose modules hold weights only while they are used: built without any, filled from disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bntools.core.architecture import linears
from bntools.core.artifact import dtypes
from bntools.core.errors import bad_input
from bntools.core.model.model import Lazy, Model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Streamed:
    """The module tree of a model, on the meta device but for its non-persistent buffers, which are computed.

    `load` fills the parameters under a path from the checkpoint through the library's own conversion (the one that
    `Model.build` takes), `release` frees them. dtype: type of the parameters, that of the arithmetic.
    Raises BnError (exit 3) on tensors that are missing or do not fit.
    """

    def __init__(self, source: Model, dtype: torch.dtype, device: str = "cpu") -> None:
        self.source, self.dtype, self.device = source, dtype, device
        self.module: PreTrainedModel = _skeleton(source, dtype, device)
        rename = linears.renamer(self.module)
        self._targets = {name: rename(name) for name in source.entries}

    def load(self, path: str, but: tuple[str, ...] = ()) -> None:
        """Fill the parameters under `path` (empty: everywhere), those under a path of `but` excepted."""
        chosen = [
            name
            for name, target in self._targets.items()
            if _under(target, path) and not any(_under(target, other) for other in but)
        ]
        self._fill(chosen)
        if path == "":
            self._tie()
        self._check(path, but)

    def _fill(self, names: list[str]) -> None:
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        floats = {name: self.source.entries[name].dtype in dtypes.FLOATS for name in names}
        lazy = {name: Lazy(self.source, name, self.dtype if floats[name] else None) for name in names}
        config = LoadStateDictConfig(
            dtype=self.dtype, weight_mapping=linears.conversions(self.module), device_map={"": self.device}
        )
        info, _ = convert_and_load_state_dict_in_model(self.module, lazy, config, None)
        wrong = sorted(str(key[0]) for key in info.mismatched_keys) + sorted(info.conversion_errors)
        if wrong:
            raise bad_input(f"{self.source.label}: tensor {wrong[0]!r} does not fit the config")
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)

    def _tie(self) -> None:
        """Tie what the checkpoint stores once; two copies that differ stay two, as in a whole-model load."""
        names = self.module.state_dict()
        absent = {name for name, value in names.items() if value.is_meta}
        self.module.tie_weights(missing_keys=absent, recompute_mapping=False)

    def _check(self, path: str, but: tuple[str, ...]) -> None:
        ignored = self.module._keys_to_ignore_on_load_missing or ()
        missing = [
            name
            for name, value in self.module.state_dict().items()
            if value.is_meta
            and _under(name, path)
            and not any(_under(name, other) for other in but)
            and not _matches(ignored, name)
        ]
        if missing:
            raise bad_input(
                f"{self.source.label}: {len(missing)} tensors are missing, the first is {missing[0]!r}"
            )

    def release(self, path: str, but: tuple[str, ...] = ()) -> None:
        """Free the parameters under `path`; buffers stay."""
        for name, module in self.module.named_modules(remove_duplicate=False):
            for key, parameter in module._parameters.items():
                full = f"{name}.{key}" if name else key
                if parameter is None or parameter.is_meta or not _under(full, path):
                    continue
                if not any(_under(full, other) for other in but):
                    empty = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
                    module._parameters[key] = empty


def _skeleton(source: Model, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """The module tree with its non-persistent buffers (rotary frequencies, causal masks) made real."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        module = linears.skeleton(source.config)
        for tensor in (*module.parameters(), *module.buffers()):
            tensor._is_hf_initialized = True  # type: ignore[attr-defined]  # nothing on the meta device needs values
        for part in module.modules():
            part._is_hf_initialized = False  # type: ignore[assignment]  # so that buffers get theirs once more
        for name, buffer in list(module.named_non_persistent_buffers()):
            path, _, key = name.rpartition(".")
            module.get_submodule(path)._buffers[key] = torch.empty_like(buffer, device=device)
        module.initialize_weights()
    finally:
        torch.set_default_dtype(default)
    return module.eval().requires_grad_(False)


def _under(name: str, path: str) -> bool:
    return path == "" or name == path or name.startswith(f"{path}.")


def _matches(patterns: Any, name: str) -> bool:
    import re

    return any(re.search(pattern, name) for pattern in patterns)
