"""A folder of the library diffusers: what its configs say without weights, and the model itself."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bntools.core.artifact.reader import open_path, parse_json
from bntools.core.diffusion.adapters import adapter_for
from bntools.core.diffusion.adapters.adapter import Adapter, Condition
from bntools.core.diffusion.adapters.preserving import Preserving
from bntools.core.diffusion.field import Clock
from bntools.core.errors import bad_input, require, usage

_BASE = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
NEGATIVE = "negative_"


@dataclass(frozen=True)
class PipelineFacts:
    """label: the folder; transformer: its folder; config and scheduler: as their files say (empty without a file)."""

    label: str
    transformer: Path
    config: dict[str, Any]
    scheduler: dict[str, Any]
    whole: bool

    @property
    def adapter(self) -> Adapter:
        return adapter_for(self.config, self.label)

    def clock(self, adapter: Adapter, shape: tuple[int, ...]) -> Clock:
        """The model's own schedule at a latent shape. Raises BnError (exit 3) for prediction types with no flow."""
        if isinstance(adapter, Preserving):
            return adapter.schedule(self.scheduler)
        kind = self.scheduler.get("prediction_type")
        if kind not in (None, "flow_prediction"):
            raise bad_input(
                f"prediction type {kind} does not fit {adapter.transformer}", "a flow-matching scheduler"
            )
        if not self.scheduler.get("use_dynamic_shifting"):
            return Clock(float(self.scheduler.get("shift", 1.0)))
        base = {key: self.scheduler.get(key, value) for key, value in _BASE.items()}
        frames = shape[1] if len(shape) == 4 else 1
        tokens = frames * (shape[-2] // adapter.patch) * (shape[-1] // adapter.patch)
        slope = (base["max_shift"] - base["base_shift"]) / (
            base["max_image_seq_len"] - base["base_image_seq_len"]
        )
        mu = base["base_shift"] + (tokens - base["base_image_seq_len"]) * slope
        return Clock(float(torch.tensor(mu).exp()))


def read_facts(source: str) -> PipelineFacts:
    """Of a pipeline's folder, or of a transformer's alone. Raises BnError: exit 2 without one, 3 for no config."""
    folder = Path(source)
    if not folder.is_dir():
        raise usage(f"no model at {source}", "a folder of diffusers, digits:, or gaussian:spec.json")
    whole = (folder / "model_index.json").is_file()
    transformer = folder / "transformer" if whole else folder
    config = _json(transformer / "config.json", source)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    return PipelineFacts(
        source, transformer, config, _json(scheduler, source) if scheduler.is_file() else {}, whole
    )


def _json(path: Path, source: str) -> dict[str, Any]:
    try:
        return parse_json(path.read_bytes(), dict, str(path))
    except OSError:
        what = f"{source} has no {path.name} where {path.parent.name}/ should have one"
        raise bad_input(what, "a folder that save_pretrained of diffusers wrote") from None


def _load(facts: PipelineFacts, kind: str, folder: str | Path, dtype: torch.dtype, **parts: Any) -> Any:
    """What a class of diffusers makes of a folder, without its messages. Raises BnError (exit 3) for what it cannot."""
    diffusers = require("diffusers", "diffusion")
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names of arguments change between the library's versions
        try:
            return getattr(diffusers, kind).from_pretrained(folder, torch_dtype=dtype, **parts)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            what = f"{facts.label}: {str(error).splitlines()[0][:150]}"
            raise bad_input(what, "is the download complete?") from None


def load_transformer(facts: PipelineFacts, dtype: torch.dtype, device: str) -> Any:
    """The transformer alone, in memory. Raises BnError: exit 3 for weights that are not there, 5 without diffusers."""
    return _load(facts, facts.adapter.transformer, facts.transformer, dtype).to(device).eval()


def load_pipeline(facts: PipelineFacts, dtype: torch.dtype) -> Any:
    """Text encoders, autoencoder and scheduler, without the transformer. Raises BnError as `load_transformer`."""
    if not facts.whole:
        raise usage(
            f"{facts.label} is a transformer without text encoders", "--cond FILE with its conditions"
        )
    return _load(facts, "DiffusionPipeline", facts.label, dtype, transformer=None)


def load_autoencoder(facts: PipelineFacts, dtype: torch.dtype) -> Any:
    """The autoencoder alone; None where the folder has none."""
    kind = _json(Path(facts.label) / "model_index.json", facts.label).get("vae") if facts.whole else None
    if not isinstance(kind, list) or not (Path(facts.label) / "vae").is_dir():
        return None
    return _load(facts, str(kind[-1]), Path(facts.label) / "vae", dtype).eval()


def read_conditions(path: str, adapter: Adapter) -> tuple[Condition, Condition | None]:
    """Tensors of a file named as the adapter names them, and those with `negative_` before the name, if any.

    Raises BnError (exit 3) for tensors that are missing or not one a sample.
    """
    with open_path(path) as file:
        names = file.names()
        missing = [name for name in adapter.conditions if name not in names]
        if missing:
            raise bad_input(
                f"{path} has no {', '.join(missing)}",
                f"{adapter.transformer} needs {', '.join(adapter.conditions)}",
            )
        condition = {name: file.tensor(name) for name in adapter.conditions}
        counts = {len(value) for value in condition.values()}
        if len(counts) != 1:
            raise bad_input(f"{path}: tensors of {sorted(counts)} samples", "one row a sample in each")
        opposite = {name: NEGATIVE + name for name in adapter.conditions}
        if not set(opposite.values()) <= set(names):
            return condition, None
        return condition, {name: file.tensor(other) for name, other in opposite.items()}


def encoded(
    pipe: Any, adapter: Adapter, prompts: list[str], negative: str | None
) -> tuple[Condition, Condition | None]:
    """Conditions of prompts, and of the negative prompt where guidance makes two passes."""
    with torch.no_grad():
        condition = adapter.encode(pipe, prompts)
        opposite = adapter.encode(pipe, [negative]) if negative is not None else None
    return condition, opposite


def repeated(condition: Condition, count: int) -> Condition:
    """Conditions of `count` samples, prompts in turn."""
    total = len(next(iter(condition.values())))
    rows = torch.arange(count) % total
    return {name: value[rows] for name, value in condition.items()}
