"""The network that is a seed and d numbers: writing its artifact and expanding it to dense weights again."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.datasets import networks
from bntools.core.errors import bad_input, usage
from bntools.core.model.model import Model
from bntools.kernels.projections import projections
from bntools.kernels.projections.structure_aware import Said

KIND = "subspace"
NETWORK = "network"
"""Kind of the dense artifact of a network that has no config.json: what `export` makes of a subspace."""
CODES = ("fp32", "fp16", "int8")
POINT, SCALE, BUFFER = "theta_d", "scale", "buffer."


@dataclass(frozen=True)
class Facts:
    """What stands in `bntools.subspace`: everything but the numbers.

    projection: kind in `projections.PROJECTIONS`; said: with a scale a layer. theta0: sha256 of the starting weights,
    float32. network: {spec, shape, classes, mean, std} of a network on standardized inputs, or {base, sha256, modules}
    where theta_0 are weights of a model in Hugging Face layout.
    """

    projection: str
    version: int
    size: int
    dim: int
    seed: int
    said: bool
    theta0: str
    network: dict[str, Any]


def digest(theta: Tensor) -> str:
    """sha256 of a vector of float32."""
    return hashlib.sha256(theta.numpy().tobytes()).hexdigest()


def make(facts: Facts, layers: list[tuple[int, int]], threads: int = 1) -> projections.Projection | Said:
    """The projection the facts name. Raises BnError (exit 3) where they do not fit it."""
    if facts.version != projections.VERSION:
        raise bad_input(f"projection version {facts.version}; this bntools knows {projections.VERSION}")
    dim = facts.dim - len(layers) if facts.said else facts.dim
    try:
        inner = projections.make(facts.projection, facts.size, dim, facts.seed, threads)
    except ValueError as error:
        raise bad_input(f"subspace of {facts.dim} in {facts.size}: {error}") from None
    return Said(inner, layers) if facts.said else inner


def encode(z: NDArray[np.float32], codes: str) -> dict[str, Tensor]:
    """The numbers as tensors: float32, float16, or int8 with one scale (round to nearest, largest at 127)."""
    point = torch.from_numpy(np.ascontiguousarray(z, np.float32))
    if codes == "fp32":
        return {POINT: point}
    if codes == "fp16":
        return {POINT: point.half()}
    scale = point.abs().max() / 127
    whole = torch.round(point / scale) if float(scale) > 0 else torch.zeros_like(point)
    return {POINT: whole.to(torch.int8), SCALE: scale.reshape(1)}


def decode(tensors: dict[str, Tensor]) -> NDArray[np.float32]:
    """The inverse of `encode`."""
    point = tensors[POINT]
    if point.dtype == torch.int8:
        return (point.float() * tensors[SCALE].float()).numpy()
    return point.float().numpy()


def write(out: Writer, facts: Facts, tensors: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
    """Put one network into a writer of kind `subspace`; buffers (of batch normalization) are kept whole."""
    out.describe("subspace", asdict(facts))
    for name, tensor in tensors.items():
        out.add(name, tensor)
    for name, tensor in buffers.items():
        out.add(BUFFER + name, tensor)


def read_facts(source: Artifact) -> Facts:
    """The facts of an artifact of kind `subspace`. Raises BnError (exit 3) where they are damaged."""
    given = source.json("bntools.subspace", dict)
    try:
        facts = Facts(**given)
    except TypeError:
        raise bad_input(f"{source.label}: metadata bntools.subspace does not describe a subspace") from None
    whole = all(isinstance(n, int) and n >= 0 for n in (facts.version, facts.size, facts.dim, facts.seed))
    if not whole or not isinstance(facts.network, dict) or not isinstance(facts.theta0, str):
        raise bad_input(f"{source.label}: metadata bntools.subspace is damaged")
    named = isinstance(facts.projection, str) and isinstance(facts.network.get("modules") or "", str)
    if not isinstance(facts.said, bool) or not named:
        raise bad_input(f"{source.label}: metadata bntools.subspace is damaged")
    point, scale = source.entries.get(POINT), source.entries.get(SCALE)
    if point is None or point.shape != (facts.dim,) or point.dtype not in ("F32", "F16", "I8"):
        raise bad_input(f"{source.label} holds no theta_d of {facts.dim} numbers")
    if point.dtype == "I8" and (scale is None or scale.shape != (1,) or scale.dtype != "F32"):
        raise bad_input(f"{source.label} holds no scale of theta_d")
    return facts


def expand_into(flat: networks.FlatParameters, source: Artifact, facts: Facts) -> None:
    """Set the network's parameters to theta_0 + P theta_d and its buffers to the stored ones, bit for bit.

    flat holds theta_0 when called. Raises BnError (exit 3) when that is not the theta_0 of the artifact.
    """
    if flat.size != facts.size or digest(flat.theta) != facts.theta0:
        what = f"{source.label} starts from other weights than those made here"
        raise bad_input(what, "the network, its base, or torch's random numbers have changed since")
    tensors = {name: source.tensor(name) for name in source.names()}
    z = decode(tensors)
    if not np.isfinite(z).all():
        raise bad_input(f"{source.label}: theta_d holds numbers that are not finite")
    theta = flat.theta.numpy()
    make(facts, flat.layers(), torch.get_num_threads()).apply(z, theta, theta)
    wanted = dict(flat.module.named_buffers())
    for name, tensor in tensors.items():
        if name.startswith(BUFFER):
            place = wanted.get(name.removeprefix(BUFFER))
            if place is None or place.shape != tensor.shape:
                raise bad_input(f"{source.label}: the network has no buffer {name.removeprefix(BUFFER)}")
            place.copy_(tensor)


def network_facts(source: Artifact) -> dict[str, Any]:
    """{spec, shape, classes, mean, std} of an artifact of kind `subspace` or `network`."""
    facts = source.json("bntools.network", dict) if source.kind == NETWORK else read_facts(source).network
    if "base" in facts:
        what = f"{source.label} is a fine-tuned language model"
        raise usage(what, "leave out --data: it is scored on text")
    shape, classes = facts.get("shape"), facts.get("classes")
    sizes = [*shape, classes] if isinstance(shape, list) and shape else [0]
    whole = all(isinstance(n, int) and 0 < n < 1 << 20 for n in sizes)
    if not whole or not isinstance(facts.get("spec"), str):
        raise bad_input(f"{source.label} does not describe its network")
    return facts


def open_network(source: Artifact, file: str | None = None) -> nn.Module:
    """The network of an artifact of kind `subspace` or `network`, with its weights.

    A network from a Python file is built only when that file is named again in `file` (FILE.py:FUNCTION): what is
    opened never says which code to run. Raises BnError: exit 2 without it, 3 where weights do not fit.
    """
    facts = network_facts(source)
    shape, classes = tuple(facts["shape"]), facts["classes"]
    if networks.is_named(facts["spec"]):
        _check_size(source, facts["spec"], shape, classes)
        module = networks.named(facts["spec"], shape, classes)
    elif file is None:
        raise usage(
            f"{source.label} is a network of {facts['spec']}", f"--model {facts['spec']} runs that file"
        )
    else:
        torch.manual_seed(0 if source.kind == NETWORK else read_facts(source).seed)
        module = networks.from_file(file)(shape, classes)
    if source.kind == NETWORK:
        _load(module, source)
        return module.eval()
    subspace = read_facts(source)
    if networks.is_named(facts["spec"]):
        networks.initialize(module, subspace.seed)
    expand_into(networks.FlatParameters(module, facts.get("modules")), source, subspace)
    return module.eval()


def _check_size(source: Artifact, spec: str, shape: tuple[int, ...], classes: int) -> None:
    """Raises BnError (exit 3) where a network is not of the size its artifact says, before it is given memory."""
    with torch.device("meta"):
        size = sum(value.numel() for value in networks.named(spec, shape, classes).parameters())
    stored = sum(source.entries[name].numel for name in source.names())
    wanted = size <= stored if source.kind == NETWORK else size == read_facts(source).size
    if not wanted:
        raise bad_input(f"{source.label} is of another size than {spec}, {size:,} weights", "is it damaged?")


def _load(module: nn.Module, source: Artifact) -> None:
    state = module.state_dict()
    if {name: tuple(t.shape) for name, t in state.items()} != {
        name: source.entries[name].shape for name in source.names()
    }:
        raise bad_input(f"{source.label}: tensors do not fit its network")
    module.load_state_dict({name: source.tensor(name) for name in state})


def fine_tuned(source: Artifact, base: Model) -> Model:
    """The model a subspace artifact makes of its base; only the tensors in the subspace are replaced, in float32.

    Raises BnError (exit 3) when `base` is not the model the artifact was made from.
    """
    facts = read_facts(source)
    module = base.build(torch.float32)
    flat = networks.FlatParameters(module, facts.network.get("modules"))
    expand_into(flat, source, facts)
    changed = dict(flat.named())
    return Model(_Overlay(base, changed), base.config, base.files, source.label, source.path, source.history,
                 source.report)  # fmt: skip


class _Overlay:
    """A store in which some tensors of a model are replaced."""

    def __init__(self, base: Model, changed: dict[str, Tensor]) -> None:
        missing = sorted(set(changed) - set(base.entries))
        if missing:
            raise bad_input(f"{base.label} has no tensor {missing[0]!r} to replace")
        self._base, self._changed = base, changed
        self.entries = dict(base.entries)

    def tensor(self, name: str) -> Tensor:
        plain = self._base.tensor(name)
        return self._changed[name].to(plain.dtype) if name in self._changed else plain

    def nbytes(self) -> int:
        return self._base.store.nbytes()

    def sha256(self) -> str:
        whole = hashlib.sha256(self._base.store.sha256().encode())
        for name in sorted(self._changed):
            whole.update(self._changed[name].numpy().tobytes())
        return whole.hexdigest()
