"""Which tensors of a checkpoint are linear weights: found by walking the module tree, not by names."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bntools.core.errors import BnError, bad_input
from bntools.core.system.import_hooks import uncollected

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Linear:
    """A linear weight of the checkpoint.

    tensor: its name there. module: the module that holds it. transposed: stored [in, out] (GPT-2's Conv1D, some
    expert stacks) rather than [out, in]. A stack of experts has one leading dimension more. router: it chooses
    experts, or lies in what does.
    """

    tensor: str
    module: str
    transposed: bool
    router: bool = False


def skeleton(config: dict[str, Any]) -> PreTrainedModel:
    """The module tree of a config, on the meta device: no weight is allocated, no remote code is run."""
    import torch

    kind, settings = model_class(config), hf_config(config)
    try:
        with torch.device("meta"):
            return kind(settings)
    except Exception as error:  # sizes that do not go together make the library raise anything
        raise bad_config(config, error) from error


def bad_config(config: dict[str, Any], error: Exception) -> BnError:
    """What to say (exit 3) where the library builds no model of a config."""
    known = f"{type(error).__name__}: {_first_line(error)}" if str(error) else type(error).__name__
    return bad_input(
        f"config.json describes no {config.get('model_type')} model: {known[:200]}", _CONFIG_HINT
    )


_COUNTS = re.compile(r"(num|n)_.*(layers?|blocks)|(num_|n_)?(layers?|blocks|depth)|.*_(layers?|depth)")
_WIDE = re.compile(r"(num|n)_.*(experts|labels|streams|groups)|.*_experts")


def check_counts(config: dict[str, Any], shapes: Iterable[tuple[int, ...]], label: str) -> None:
    """Raises BnError (exit 3) where a config counts more layers or experts than its checkpoint can hold.

    Every layer has a tensor of its own, and every expert one or a row of a stack: without this a model of 10^9 layers
    would be built before anything is compared.
    """
    held = list(shapes)
    layers = max(4 * len(held), 64)  # some share the tensors of a layer
    widest = max((size for shape in held for size in shape), default=0)
    for key, value in _numbers(config):
        most = (
            layers if _COUNTS.fullmatch(key) else max(layers, widest, 1024) if _WIDE.fullmatch(key) else None
        )
        if most is not None and value > most:
            raise bad_input(
                f"{label}: config.json says {key} {str(value)[:24]}, its checkpoint holds {len(held)} tensors",
                "the config is of another model, or damaged",
            )


def _numbers(value: Any) -> Iterator[tuple[str, float]]:
    """Every number in a config with its key, at any depth."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _numbers(inner)
        elif isinstance(inner, int | float):
            yield str(key), inner


def hf_config(config: dict[str, Any]) -> Any:
    """A transformers config object; BnError (exit 3) for an unknown or damaged one."""
    import transformers

    _quiet()
    packed = config.get("quantization_config")
    method = packed.get("quant_method") if isinstance(packed, dict) else packed
    if method not in (None, "bntools"):
        raise bad_input(f"the checkpoint is already quantized by {method}", "start from the original weights")
    plain = {key: decoded(value) for key, value in config.items() if key != "quantization_config"}
    try:
        return transformers.AutoConfig.for_model(**plain)
    except Exception as error:  # whatever a damaged config makes the library raise, the config is at fault
        name = config.get("model_type", "(none)")
        raise bad_input(f"config.json: model_type {name!r}: {_first_line(error)}", _MODEL_HINT) from error


_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def decoded(value: Any) -> Any:
    """A value of config.json, {"__float__": "Infinity"} in it, at any depth, as the number that transformers reads."""
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    tag = value.get("__float__") if len(value) == 1 else None
    if isinstance(tag, str) and tag in _FLOATS:
        return _FLOATS[tag]
    return {key: decoded(one) for key, one in value.items()}


_CONFIG_HINT = "its values do not go together: get the model again"
_MODEL_HINT = "only architectures that transformers implements are read; remote code is never run"


def model_class(config: dict[str, Any]) -> Any:
    """The transformers class that config.json names."""
    with uncollected():  # a fifth of the time of this import
        return _model_class(config)


def _model_class(config: dict[str, Any]) -> Any:
    import transformers

    _quiet()
    named = config.get("architectures")
    for name in named if isinstance(named, list) else []:
        kind = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
            return kind
    auto = transformers.AutoModelForCausalLM
    try:
        return auto._model_mapping[type(hf_config(config))]
    except KeyError:
        raise bad_input(
            f"config.json: no model class for architectures {config.get('architectures')}", _MODEL_HINT
        ) from None


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]


def linear_parameters(model: torch.nn.Module) -> dict[str, Linear]:
    """Linear weights of a module tree by parameter name: nn.Linear, Conv1D and stacked 3-D expert weights.

    The output head is not among them, nor is anything tied to an embedding. Routers are, and marked.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    from bntools.core.architecture import experts

    routers = experts.routers(model)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    parameters = {}
    for path, module in model.named_modules():
        if module is head or id(getattr(module, "weight", None)) in embeddings:
            continue
        if isinstance(module, torch.nn.Linear | Conv1D):
            turned = isinstance(module, Conv1D)
            parameters[f"{path}.weight"] = Linear(f"{path}.weight", path, turned, path in routers)
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if experts.is_stack(module, parameter):
                full = f"{path}.{name}"
                parameters[full] = Linear(full, path, bool(getattr(module, "is_transposed", False)))
    return parameters


def linear_tensors(config: dict[str, Any], names: Iterable[str]) -> dict[str, Linear]:
    """Linear weights among the tensors `names` of a checkpoint, in that order.

    A checkpoint may name and slice weights differently from the modules (one tensor an expert where the module
    stacks them): the library's own conversion table says which parameter each tensor becomes.
    """
    model = skeleton(config)
    parameters = linear_parameters(model)
    to_parameter = renamer(model)
    targets = {name: to_parameter(name) for name in names}
    merged = {target for target, count in Counter(targets.values()).items() if count > 1}
    cut = cut_on_loading(model)
    tensors = {}
    for name, target in targets.items():
        parameter = parameters.get(target)
        if parameter is not None:
            # What is merged or cut on loading is the weight of no module: its own name stands for one.
            whole = target not in merged and not any(re.search(pattern, target) for pattern in cut)
            alone = whole or not target.endswith(".weight")
            module = parameter.module if alone else name.removesuffix(".weight")
            tensors[name] = replace(parameter, tensor=name, module=module)
    return tensors


def block_tensors(config: dict[str, Any], names: Iterable[str]) -> list[str]:
    """The tensors `names` of a checkpoint that lie in the repeated blocks, in that order."""
    import torch

    model = skeleton(config)
    lists = [path for path, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    to_parameter = renamer(model)
    return [name for name in names if to_parameter(name).startswith(tuple(f"{path}." for path in lists))]


def conversions(model: PreTrainedModel) -> list[Any]:
    """The library's table from checkpoint tensors to the parameters of a model."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    return list(get_model_conversion_mapping(model))


def cut_on_loading(model: PreTrainedModel) -> list[str]:
    """Patterns of parameters of which several are made from the same tensors of a checkpoint."""
    try:
        transforms = conversions(model)
    except ImportError:
        return []
    targets = [getattr(one, "target_patterns", []) for one in transforms]
    return [re.escape(str(pattern)) for some in targets if len(some) > 1 for pattern in some]


def renamer(model: PreTrainedModel) -> Callable[[str], str]:
    """From the name of a checkpoint's tensor to the parameter it becomes, or becomes a part of."""
    try:
        from transformers.core_model_loading import WeightConverter, rename_source_key

        transforms = conversions(model)
    except ImportError:  # before these tables existed, checkpoint names were parameter names
        return lambda name: name
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    renamings = [t for t in transforms if not isinstance(t, WeightConverter)]
    shapes = model.state_dict()

    def rename(name: str) -> str:
        return rename_source_key(name, renamings, converters, model.base_model_prefix, shapes)[0]

    return rename
