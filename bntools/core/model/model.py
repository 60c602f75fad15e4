"""A model as every tool sees it: config, side files, and its weights read tensor by tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bntools.core.architecture import linears as modules
from bntools.core.artifact import dtypes, header
from bntools.core.artifact.header import Entry
from bntools.core.artifact.reader import Artifact, parse_json
from bntools.core.artifact.store import TensorStore
from bntools.core.errors import bad_input
from bntools.core.packing import bitstack, entropy, grouped, stack

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


_DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, ArithmeticError)
"""What the library raises where values of a config do not go together."""


class Shards:
    """Tensors of one or several safetensors files as one checkpoint."""

    def __init__(self, artifacts: Sequence[Artifact]) -> None:
        self.artifacts = list(artifacts)
        self.entries: dict[str, Entry] = {}
        self._home: dict[str, Artifact] = {}
        for artifact in self.artifacts:
            for name in artifact.names():
                if name in self._home:
                    raise bad_input(
                        f"tensor {name!r} stands in two shards: {artifact.label} and {self._home[name].label}"
                    )
                self._home[name] = artifact
                self.entries[name] = artifact.entries[name]

    def tensor(self, name: str) -> torch.Tensor:
        return self._home[name].tensor(name)

    def part(self, name: str) -> bytearray:
        """What is there of the bytes of one tensor."""
        return self._home[name].part(name)

    def part_bytes(self, name: str) -> int:
        """How many bytes of one tensor are there."""
        return self._home[name].part_bytes(name)

    def nbytes(self) -> int:
        return sum(artifact.nbytes for artifact in self.artifacts)

    def sha256(self) -> str:
        """Digest of the file; of the digests of its shards where there are several."""
        digests = [artifact.sha256() for artifact in self.artifacts]
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


@dataclass
class Model:
    """An opened model. Tensor names and shapes are those of the dense checkpoint, also where it is quantized."""

    store: TensorStore
    config: dict[str, Any]
    files: dict[str, bytes]
    label: str
    path: Path | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def packing(self) -> dict[str, grouped.AnySpec]:
        """Specs of the packed tensors; empty for a dense model."""
        text = self.files.get(grouped.FILE)
        if text is None:
            return {}
        specs = grouped.decode(parse_json(text, dict, grouped.FILE))
        for name, spec in specs.items():
            grouped.check_parts(name, spec, self.store.entries, self.label)
        return specs

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Dense tensors by name, in the order of the checkpoint; `start` and `end` count dense bytes from zero."""
        parts = {part: name for name, spec in self.packing.items() for part in grouped.part_names(name, spec)}
        dense: dict[str, Entry] = {}
        for stored, entry in self.store.entries.items():
            name = parts.get(stored)
            if stored == entropy.TABLES or stored.startswith(header.BLOCK_PREFIX):
                continue
            if name is None:
                dense[stored] = entry
            elif name not in dense:
                spec = self.packing[name]
                dense[name] = Entry(name, spec.dtype, spec.shape, 0, header.nbytes(spec.dtype, spec.shape))
        return dense

    def tensor(self, name: str, dtype: torch.dtype | None = None, planes: int | None = None) -> torch.Tensor:
        """One dense tensor in its own type, or in `dtype`; of a stack with at most so many planes or levels."""
        spec = self.packing.get(name)
        if spec is None:
            plain = self.store.tensor(name)
            return plain if dtype is None else plain.to(dtype)
        wanted = dtype or dtypes.torch_dtype(spec.dtype)
        if isinstance(spec, bitstack.BitstackSpec):
            scale = self.store.tensor(spec.part_names(name)[1]) if spec.scaled else None
            return bitstack.dense(name, spec, self._part, scale, wanted, planes)
        if isinstance(spec, entropy.EntropySpec):
            if isinstance(spec, stack.StackSpec):
                return self._stacked(name, spec, wanted, planes)
            stream = self.store.tensor(spec.part_names(name)[0])
            return self.decoder.dense(name, spec, stream.numpy().tobytes(), wanted)
        return grouped.dense(name, spec, self.store.tensor, wanted)

    def planes(self, name: str) -> stack.Planes:
        """The planes of a stack that are there of one weight."""
        spec = self.packing[name]
        assert isinstance(spec, stack.StackSpec)
        return stack.Planes.read(name, spec, self._part)

    def _part(self, stored: str) -> bytes | bytearray:
        """What is there of a stored tensor of a stack."""
        assert isinstance(self.store, Shards)
        return self.store.part(stored) if stored in self.store.entries else b""

    def base(self, name: str) -> stack.Base:
        """The base of a stacked weight; BnError (exit 3) on a damaged stream."""
        spec = self.packing[name]
        assert isinstance(spec, stack.StackSpec)
        data = self.store.tensor(spec.part_names(name)[0]).numpy().tobytes()
        return stack.Base.of(self.decoder.coded(name, spec, data), self.decoder.tables.shrink, spec.octave)

    def _stacked(
        self, name: str, spec: stack.StackSpec, dtype: torch.dtype, planes: int | None
    ) -> torch.Tensor:
        base = self.base(name)  # before the planes: it checks that the stream is of the size it claims
        decoded = self.planes(name)
        return base.dense(decoded if planes is None else decoded.limited(planes), dtype, spec.transposed)

    @cached_property
    def decoder(self) -> entropy.Decoder:
        """Of the entropy-coded tensors, with the tables they share."""
        if entropy.TABLES not in self.store.entries or self.store.entries[entropy.TABLES].dtype != "U8":
            raise bad_input(f"tensor {entropy.TABLES!r} is missing from {self.label}, or no bytes")
        return entropy.Decoder(self.store.tensor(entropy.TABLES).numpy().tobytes())

    @cached_property
    def linears(self) -> dict[str, modules.Linear]:
        """Linear weights by tensor name, in checkpoint order; a router only where it is packed."""
        linears = self._all_linears.items()
        return {name: linear for name, linear in linears if not linear.router or name in self.packing}

    @cached_property
    def routers(self) -> dict[str, modules.Linear]:
        """Linear weights that choose experts."""
        return {name: linear for name, linear in self._all_linears.items() if linear.router}

    @cached_property
    def _all_linears(self) -> dict[str, modules.Linear]:
        return modules.linear_tensors(self.config, self.entries)

    def stored_bytes(self, name: str) -> int:
        """Bytes one dense tensor takes in the store, all metadata of its packing counted."""
        spec = self.packing.get(name)
        parts = [name] if spec is None else grouped.part_names(name, spec)
        held = sum(self.store.entries[part].nbytes for part in parts)
        if isinstance(spec, grouped.STACKED) and isinstance(self.store, Shards):
            blocks = (block for block in spec.block_names(name) if block in self.store.entries)
            held += sum(map(self.store.part_bytes, blocks))
        return held

    def bits_per_weight(self, names: Iterable[str] | None = None) -> float:
        """Bits per weight of some tensors, or of all, the metadata of their packing counted."""
        chosen = list(self.entries if names is None else names)
        weights = sum(self.entries[name].numel for name in chosen)
        tables = self.store.entries.get(entropy.TABLES)
        shared = tables.nbytes if tables else 0
        return round(8 * (shared + sum(map(self.stored_bytes, chosen))) / max(weights, 1), 4)

    def build(
        self, dtype: torch.dtype, device: str = "cpu", made: Callable[[str], torch.Tensor] | None = None
    ) -> PreTrainedModel:
        """The transformers model with these weights, dequantized; each tensor is made when it is placed.

        made: gives the packed tensors, once each, where they are made elsewhere. Else, for main memory, those that are
        entropy-coded are made beside the import of transformers. Raises BnError (exit 3) when tensors are missing or
        do not fit.
        """
        from bntools.core.system.threads import ahead

        if made is not None:
            return self._built(dtype, device, dict.fromkeys(self.packing, made))
        here = str(device) == "cpu"  # what goes elsewhere need not all fit here
        coded = [
            name for name, spec in self.packing.items() if here and isinstance(spec, entropy.EntropySpec)
        ]
        with ahead(lambda name: self.tensor(name, dtype), coded) as given:
            return self._built(dtype, device, dict.fromkeys(coded, given))

    def _built(self, dtype: torch.dtype, device: str, made: dict[str, Callable[[str], torch.Tensor]]) -> Any:
        """made: what gives a tensor, where that is not the model itself."""
        kind = modules.model_class(self.config)
        config = modules.hf_config(self.config)
        lazy = {
            name: Lazy(self, name, dtype if entry.dtype in dtypes.FLOATS else None, made.get(name))
            for name, entry in self.entries.items()
        }
        try:
            model, loading = kind.from_pretrained(
                None, config=config, state_dict=lazy, dtype=dtype, output_loading_info=True
            )
        except RuntimeError as error:
            first = (str(error) or type(error).__name__).splitlines()[0][:160]
            raise bad_input(f"{self.label}: weights do not fit the config: {first}") from error
        except _DAMAGE as error:
            raise modules.bad_config(self.config, error) from error
        missing = sorted(loading["missing_keys"])
        if missing:
            raise bad_input(f"{self.label}: {len(missing)} tensors are missing, the first is {missing[0]!r}")
        return model.to(device).eval()  # device_map would ask for accelerate


class Lazy:
    """Stands for a tensor until the loader asks for its content with `[...]`."""

    def __init__(
        self,
        model: Model,
        name: str,
        dtype: torch.dtype | None,
        made: Callable[[str], torch.Tensor] | None = None,
    ) -> None:
        self._make = (lambda: made(name)) if made else (lambda: model.tensor(name, dtype))
        self._entry = model.entries[name]
        self.device = "cpu"

    def __getitem__(self, index: object) -> torch.Tensor:
        tensor = self._make()
        return tensor if index is Ellipsis else tensor[index]

    def get_shape(self) -> list[int]:
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        return self._entry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._entry.shape
