"""Packed models for transformers' own `from_pretrained`: linears that stay packed, or are dequantized once loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import WeightRenaming
from transformers.quantizers import auto
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from bntools.core.architecture import linears
from bntools.core.artifact import dtypes
from bntools.core.artifact.reader import open_path
from bntools.core.errors import bad_input
from bntools.core.packing import grouped
from bntools.core.packing.grouped import GroupSpec
from bntools.kernels.grouped import operations as grouped_operations

METHOD = "bntools"
WEIGHTS = "packed.safetensors"
_MARK = "weight"


class PackedLinear(nn.Module):
    """A linear layer y = x W^T + b whose W stays packed; forward only, no gradient reaches x or W."""

    def __init__(self, linear: nn.Linear, spec: GroupSpec, stored: dict[str, torch.dtype]) -> None:
        super().__init__()
        self.in_features, self.out_features, self.spec = linear.in_features, linear.out_features, spec
        _add_buffers(self, _MARK, spec, stored)
        self.bias = linear.bias
        self._view: tuple[Any, Any] = (None, None)

    def forward(self, x: Tensor) -> Tensor:
        y = grouped_operations.matvec(self.packed(), self._scaled(x, "inputs"))
        y = self._scaled(y, "outputs").to(x.dtype)
        return y if self.bias is None else y + self.bias

    def _scaled(self, x: Tensor, part: str) -> Tensor:
        """x times the factors of the inputs or outputs, where there are any."""
        steps = getattr(self.spec, part)
        return x * grouped.factors(getattr(self, f"{_MARK}_{part}"), steps) if steps else x

    def packed(self) -> Any:
        """The codes as the kernels take them, made again when a buffer moved."""
        place = tuple(tensor.data_ptr() for tensor in self.buffers())
        if self._view[0] != place:
            self._view = (place, grouped.slices(_MARK, self.spec, _getter(self, _MARK))[0])
        return self._view[1]

    @property
    def weight(self) -> Tensor:
        """W [out, in], dequantized to its original type each time it is asked for."""
        return grouped.dense(_MARK, self.spec, _getter(self, _MARK), dtypes.torch_dtype(self.spec.dtype))

    def extra_repr(self) -> str:
        group = self.spec.group
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.spec.bits}, group={group}"


def _add_buffers(module: nn.Module, name: str, spec: GroupSpec, stored: dict[str, torch.dtype]) -> None:
    for part, shape in spec.part_shapes().items():
        module.register_buffer(f"{name}_{part}", torch.empty(shape, dtype=stored[part], device="meta"))


def _getter(module: nn.Module, name: str) -> Callable[[str], Tensor]:
    """Stored parts by the names that `packed` asks for, `<name>.<part>`."""
    return lambda part: getattr(module, f"{name}_{part.rpartition('.')[2]}")


class BntoolsConfig(QuantizationConfigMixin):
    """The entry `quantization_config` of a packed model. dequantize: dense weights once loaded."""

    def __init__(self, dequantize: bool = False, **settings: Any) -> None:
        self.__dict__.update(settings)
        self.quant_method: Any = METHOD
        self.dequantize = dequantize

    def get_loading_attributes(self) -> dict[str, Any]:
        return {"dequantize": self.dequantize}


class BntoolsQuantizer(HfQuantizer):
    """Loads what `bntools quantize -o DIR/` wrote.

    Where every packed tensor is the weight of an nn.Linear, the linears stay packed; other models, and all with
    `dequantize`, become dense in the type asked for. Raises BnError for a damaged table or packed tensors that the
    model does not have under their own names.
    """

    requires_calibration = True  # that is: only weights already quantized are loaded

    def update_attn_implementation(self, config: Any) -> Any:
        """The one call that sees the config before files are looked up: name the file of packed weights.

        It is not model.safetensors, so that a transformers that does not know us finds no weights at all instead of
        filling in random ones.
        """
        folder = Path(str(config.name_or_path or ""))
        if not folder.is_dir() or (folder / WEIGHTS).is_file():
            config.transformers_weights = WEIGHTS
        return config

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Any = None, dtype: Any = None, **rest: Any
    ) -> Any:
        self._dtype = dtype
        specs, stored = _table(model, checkpoint_files)
        self._places = _places(model, specs)
        linear = all(
            isinstance(model.get_submodule(path), nn.Linear) and not spec.transposed and len(spec.shape) == 2
            for path, _, spec, _ in self._places
        )
        self._dense = bool(getattr(self.quantization_config, "dequantize", False)) or not linear
        for path, name, spec, key in self._places:
            kinds = {part: stored[f"{key}.{part}"] for part in spec.part_shapes()}
            module = model.get_submodule(path)
            if self._dense:
                _hide(module, name)
                _add_buffers(module, name, spec, kinds)
            else:
                model.set_submodule(path, PackedLinear(module, spec, kinds))
        return model

    def get_weight_conversions(self) -> list[Any]:
        """`<weight>.<part>` of the file is the buffer `<weight>_<part>` of its module."""
        parts = {part for *_, spec, _ in self._places for part in spec.part_shapes()}
        return [WeightRenaming(rf"\.{part}$", f"_{part}") for part in sorted(parts)]

    def _process_model_after_weight_loading(self, model: Any, **rest: Any) -> Any:
        if hasattr(model.config, "transformers_weights"):
            del model.config.transformers_weights
        if self._dense:
            for path, name, spec, _ in self._places:
                _restore(model.get_submodule(path), name, spec, self._dtype)
            self.remove_quantization_config(model)
        return model

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        for path, module in list(model.named_modules()):
            if isinstance(module, PackedLinear):
                with torch.device("meta"):
                    dense = nn.Linear(module.in_features, module.out_features, bias=False)
                weight = grouped.dense(
                    _MARK, module.spec, _getter(module, _MARK), dtype or module.weight.dtype
                )
                dense.weight = nn.Parameter(weight, requires_grad=False)
                dense.bias = module.bias
                model.set_submodule(path, dense)
        return model

    def is_serializable(self) -> Any:
        return False  # save_pretrained would drop quantization.json; copy the directory instead

    @property
    def is_trainable(self) -> Any:
        return False


def _table(model: Any, files: Any) -> tuple[dict[str, GroupSpec], dict[str, torch.dtype]]:
    """Specs by tensor name, and the type of every stored tensor."""
    from transformers.utils.hub import cached_file

    if not files:
        raise bad_input("a packed model is loaded from its directory only")
    beside = Path(files[0]).parent / grouped.FILE
    path = beside if beside.is_file() else cached_file(model.config.name_or_path, grouped.FILE)
    told = grouped.decode(json.loads(Path(str(path)).read_bytes()))
    specs = {name: spec for name, spec in told.items() if isinstance(spec, grouped.GroupSpec)}
    if len(specs) < len(told):
        raise bad_input("transformers cannot load entropy-coded weights", "bntools export writes them dense")
    stored: dict[str, torch.dtype] = {}
    for file in files:
        with open_path(file) as artifact:
            stored |= {name: dtypes.torch_dtype(entry.dtype) for name, entry in artifact.entries.items()}
    for name, spec in specs.items():
        for part in grouped.part_names(name, spec):
            if part not in stored:
                raise bad_input(f"tensor {part!r} is missing from {files[0]}")
    return specs, stored


def _places(model: Any, specs: dict[str, GroupSpec]) -> list[tuple[str, str, GroupSpec, str]]:
    """(module path, parameter name, spec, checkpoint name) of each packed tensor."""
    rename = linears.renamer(model)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    places = []
    for key, spec in specs.items():
        name = rename(key)
        if shapes.get(name) != spec.shape:
            raise bad_input(
                f"packed tensor {key!r} {list(spec.shape)} is no parameter of {type(model).__name__} by itself",
                "bntools export writes a dense model",
            )
        path, _, last = name.rpartition(".")
        places.append((path, last, spec, key))
    return places


def _hide(module: nn.Module, name: str) -> None:
    """Put a tensor without memory in a parameter's place: not missed, and harmless to initialize."""
    placeholder = torch.empty(module._parameters[name].shape, device="meta")  # type: ignore[union-attr]
    del module._parameters[name]
    object.__setattr__(module, name, placeholder)


def _restore(module: nn.Module, name: str, spec: GroupSpec, dtype: Any) -> None:
    """Replace the packed parts of one parameter by its dense values."""
    get = _getter(module, name)
    dense = grouped.dense(name, spec, get, dtype or dtypes.torch_dtype(spec.dtype))
    for part in spec.part_shapes():
        del module._buffers[f"{name}_{part}"]
    delattr(module, name)
    module.register_parameter(name, nn.Parameter(dense.contiguous(), requires_grad=False))


def register() -> None:
    """Make transformers know the quantization method; once."""
    if METHOD in auto.AUTO_QUANTIZER_MAPPING:
        return
    register_quantization_config(METHOD)(BntoolsConfig)
    register_quantizer(METHOD)(BntoolsQuantizer)
    known = getattr(auto, "LOADING_ATTRIBUTES_CONFIG_TYPES", ())
    auto.LOADING_ATTRIBUTES_CONFIG_TYPES = (*known, BntoolsConfig)  # so that dequantize may be asked for
