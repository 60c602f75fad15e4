"""Checkpoints quantized by others, shown as packed tensors of ours: codes unchanged, nothing dequantized early."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bntools.core.architecture import linears as modules
from bntools.core.artifact.header import Entry, nbytes
from bntools.core.artifact.store import TensorStore
from bntools.core.errors import bad_input
from bntools.core.foreign import compressed_tensors, gptq, plain_codes
from bntools.core.foreign.plain_codes import PlainCodes
from bntools.core.packing import grouped
from bntools.core.packing.grouped import GroupSpec

if TYPE_CHECKING:
    from torch import Tensor

Config = dict[str, Any]
Files = dict[str, bytes]
Make = Callable[[], PlainCodes]
READ = ("gptq", "compressed-tensors")
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError)


class Recoded:
    """A store in which the tensors of a foreign format are replaced by the parts of our packing.

    A part is made when it is asked for; the parts of the weight asked for last are kept.
    """

    def __init__(
        self, store: TensorStore, consumed: set[str], specs: Mapping[str, tuple[GroupSpec, str, Make]]
    ) -> None:
        self._store = store
        self._makes: dict[str, tuple[str, Make]] = {}
        self.entries = {name: entry for name, entry in store.entries.items() if name not in consumed}
        for name, (spec, scales, make) in specs.items():
            for part, shape in spec.part_shapes().items():
                kind = scales if part == "scales" else "U8"
                self.entries[f"{name}.{part}"] = Entry(f"{name}.{part}", kind, shape, 0, nbytes(kind, shape))
                self._makes[f"{name}.{part}"] = (name, make)
        self._last: tuple[str, dict[str, Tensor]] = ("", {})

    def tensor(self, name: str) -> Tensor:
        if name not in self._makes:
            return self._store.tensor(name)
        weight, make = self._makes[name]
        kept, recoded = self._last
        if kept != weight:
            try:
                recoded = plain_codes.parts(make())
            except _DAMAGE as error:
                raise bad_input(f"{weight}: its packed tensors are damaged: {error}"[:200]) from None
            self._last = (weight, recoded)
        return recoded[name.rpartition(".")[2]]

    def nbytes(self) -> int:
        return self._store.nbytes()

    def sha256(self) -> str:
        return self._store.sha256()


def method_of(config: Config) -> str | None:
    """The method by which a checkpoint is packed, by its config; None for a dense one or one of ours."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        for key in ("quantization_config", "compression_config", "quantization"):
            settings = part.get(key)
            if settings:
                method = settings.get("quant_method") if isinstance(settings, dict) else None
                return None if method == "bntools" else str(method or f"{key} without a quant_method")
    return None


def refuse_unread(method: str | None, entries: Mapping[str, Entry], label: str) -> None:
    """Raises BnError (exit 3) where tensors are packed in a way that is not read: they are no weights as they stand."""
    hint = "start from the original weights"
    if method is not None:
        raise bad_input(f"{label}: the checkpoint is already quantized by {method}", hint)
    coded = {name for name, entry in entries.items() if entry.dtype.startswith(("F8", "F4", "F6"))}
    scales = [name for name in entries if "_scale" in name.rpartition(".")[2] and _beside(name, coded)]
    if scales:
        what = f"{label}: {scales[0]!r} scales an 8-bit weight, and no quantization_config says how"
        raise bad_input(what, hint)


def _beside(name: str, coded: set[str]) -> bool:
    """Whether a scale lies beside a weight of few bits: its module's, or its own with a suffix."""
    module, _, last = name.rpartition(".")
    return f"{module}.{last.partition('_scale')[0]}" in coded or f"{module}.weight" in coded


def adopt(store: Any, config: Config, files: Files, label: str) -> tuple[Any, Config, Files]:
    """The store, config and side files of a checkpoint in our own terms; unchanged where it is not quantized.

    Raises BnError (exit 3) for a method that is not read, or a checkpoint that its own config does not describe.
    """
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if method not in READ or grouped.FILE in files:
        return store, config, files
    assert isinstance(settings, dict)
    try:
        coded = (_gptq if method == "gptq" else _compressed)(store, settings, config, _dtype(config))
    except _DAMAGE as error:
        raise bad_input(f"{label}: its quantization_config or tensors are damaged: {error!r}"[:200]) from None
    if not coded:
        raise bad_input(f"{label}: its config says {method}, but no tensor is packed that way")
    parts = gptq.PARTS if method == "gptq" else compressed_tensors.PARTS
    consumed = {f"{name.removesuffix('.weight')}.{part}" for name in coded for part in parts}
    specs = {name: (spec, {}) for name, (spec, _, _) in coded.items()}
    table = json.dumps(grouped.encode(specs)).encode()
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    return Recoded(store, consumed, coded), plain, {**files, grouped.FILE: table}


def _dtype(config: Config) -> str:
    name = config.get("dtype") or config.get("torch_dtype") or "float16"
    named = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
    return named.get(str(name).removeprefix("torch."), "F16")


def _modules(store: TensorStore, part: str) -> list[str]:
    return [name.removesuffix(f".{part}") for name in store.entries if name.endswith(f".{part}")]


def _shapes(
    store: TensorStore, module: str, parts: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    entries = {part: store.entries.get(f"{module}.{part}") for part in parts}
    for part in needed:
        if entries[part] is None:
            raise bad_input(f"tensor {module}.{part} is missing")
    return {part: entry.shape for part, entry in entries.items() if entry is not None}


def _stored(store: TensorStore, module: str, parts: Mapping[str, Any]) -> dict[str, Tensor]:
    return {part: store.tensor(f"{module}.{part}") for part in parts}


def _gptq(
    store: TensorStore, settings: Config, config: Config, dtype: str
) -> dict[str, tuple[GroupSpec, str, Make]]:
    first = settings.get("checkpoint_format", "gptq") != "gptq_v2"
    names = [f"{module}.weight" for module in _modules(store, "qweight")]
    linears = modules.linear_tensors({**config, "quantization_config": None}, names)
    coded: dict[str, tuple[GroupSpec, str, Make]] = {}
    for name in names:
        module = name.removesuffix(".weight")
        shapes = _shapes(store, module, gptq.PARTS, ("qweight", "qzeros", "scales"))
        bits, inputs, width = gptq.sizes(settings, shapes, module)
        turned = name in linears and linears[name].transposed
        out = shapes["scales"][1]
        spec = GroupSpec(
            bits=bits, group=-1 if width == inputs else width, dim="oc", symmetric=False,
            shape=(inputs, out) if turned else (out, inputs), dtype=dtype, transposed=turned,
        )  # fmt: skip

        def make(
            module: str = module, shapes: Any = shapes, bits: int = bits, width: int = width
        ) -> PlainCodes:
            return gptq.decode(_stored(store, module, shapes), bits, width, first, module)

        coded[name] = (spec, store.entries[f"{module}.scales"].dtype, make)
    return coded


def _compressed(
    store: TensorStore, settings: Config, config: Config, dtype: str
) -> dict[str, tuple[GroupSpec, str, Make]]:
    coded: dict[str, tuple[GroupSpec, str, Make]] = {}
    for module in _modules(store, "weight_packed"):
        shapes = _shapes(
            store, module, compressed_tensors.PARTS, ("weight_packed", "weight_scale", "weight_shape")
        )
        scheme = compressed_tensors.weights_of(settings, module)
        out, inputs = (int(size) for size in store.tensor(f"{module}.weight_shape"))
        bits, group = int(scheme["num_bits"]), scheme.get("group_size")
        width = (
            inputs if scheme["strategy"] == "channel" or not group or group < 0 else min(int(group), inputs)
        )
        spec = GroupSpec(
            bits=bits, group=-1 if width == inputs else width, dim="oc",
            symmetric="weight_zero_point" not in shapes, shape=(out, inputs), dtype=dtype, transposed=False,
        )  # fmt: skip
        if not (1 <= bits <= 8 and out > 0 and inputs > 0):
            raise bad_input(f"{module}: {bits} bits of [{out}, {inputs}] is out of range")

        def make(
            module: str = module, shapes: Any = shapes, bits: int = bits, width: int = width,
            shape: tuple[int, int] = (out, inputs),
        ) -> PlainCodes:  # fmt: skip
            return compressed_tensors.decode(_stored(store, module, shapes), bits, width, shape, module)

        coded[f"{module}.weight"] = (spec, store.entries[f"{module}.weight_scale"].dtype, make)
    return coded
