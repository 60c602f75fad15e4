"""SAELens' layout of a sparse autoencoder: a folder of cfg.json and sae_weights.safetensors, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.artifact.reader import open_path, parse_json
from bntools.core.errors import bad_input, usage
from bntools.core.methods.sparse_dictionary import Dictionary

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
_OURS = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}
_THEIRS = {
    "relu": "standard", "topk": "topk", "jumprelu": "jumprelu", "batchtopk": "jumprelu", "matryoshka": "jumprelu",
    "gated": "gated",
}  # fmt: skip


def read_folder(folder: Path) -> Dictionary:
    """A folder of SAELens as a dictionary. Raises BnError (exit 3) where it is none, or of a kind not known here.

    Decoder rows are scaled to length 1 and what they lose goes to the encoder, so codes are sizes along directions.
    """
    config_path, weights_path = folder / CONFIG, folder / WEIGHTS
    if not config_path.is_file() or not weights_path.is_file():
        raise bad_input(f"{folder} holds no {CONFIG} and {WEIGHTS}", "a dictionary of ours is one file")
    config = parse_json(config_path.read_bytes(), dict, str(config_path))
    kind = config.get("architecture", "standard")
    if kind not in _OURS:
        raise bad_input(
            f"{config_path}: architecture {kind!r} is not known here", f"one of {', '.join(_OURS)}"
        )
    normalised = config.get("normalize_activations", "none")
    if normalised not in ("none", None):
        raise bad_input(
            f"{config_path}: normalize_activations {normalised!r} is not read",
            "fold it into the weights first",
        )
    with open_path(weights_path) as file:
        arrays = {name: file.tensor(name).float().numpy() for name in file.names()}
    return _assemble(arrays, config, _OURS[kind], str(folder))


def _assemble(arrays: dict[str, NDArray[Any]], config: dict[str, Any], method: str, label: str) -> Dictionary:
    missing = [name for name in ("W_enc", "W_dec", "b_dec") if name not in arrays]
    if missing:
        raise bad_input(f"{label}: {WEIGHTS} holds no {missing[0]}")
    W, D = arrays["W_enc"], arrays["W_dec"]
    if D.ndim != 2 or W.shape != D.T.shape:
        raise bad_input(f"{label}: W_enc {list(W.shape)} and W_dec {list(D.shape)} do not fit")
    m, d = D.shape
    length = np.maximum(np.linalg.norm(D, axis=1), 1e-12).astype(np.float32)
    be, bd = arrays.get("b_enc", np.zeros(m, np.float32)), arrays["b_dec"]
    E = np.ascontiguousarray(W.T)
    if not config.get("apply_b_dec_to_input", True):
        be = be + E @ bd  # ours sees rows less bd
    theta = gate = None
    if method == "gated":
        gate = np.stack([arrays["b_gate"], arrays["r_mag"] + np.log(length)])
        be = arrays["b_mag"] * length
    elif method == "topk" and not config.get("rescale_acts_by_decoder_norm", False):
        if np.ptp(length) > 1e-3 * float(length.mean()):
            raise bad_input(
                f"{label}: decoder rows differ in length, and the k largest depend on it",
                "rescale them first",
            )
        E, be = E * length[:, None], be * length
    else:
        E, be = E * length[:, None], be * length
        theta = arrays["threshold"] * length if method == "jumprelu" else None
    k = int(config.get("k", 0)) or min(32, m - 1)
    facts = {"method": method, "k": k, "m": m, "d": d, "site": None, "inference": {"kind": "encoder"}}
    metadata = config.get("metadata") or {}
    facts["hook"] = metadata.get("hook_name", config.get("hook_name"))
    return Dictionary(
        E.astype(np.float32), be.astype(np.float32), (D / length[:, None]).astype(np.float32), bd.astype(np.float32),
        np.zeros(d, np.float32), 1.0, {k: v for k, v in facts.items() if v is not None}, theta, gate, label=label,
    )  # fmt: skip


def arrays_of(dictionary: Dictionary) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and configuration of SAELens that give the same codes times the scale, and the same rows.

    With x' = (x - mean) / s and codes z: W_enc = E^T, b_dec = mean + s bd, and E (x - b_dec) = s E (x' - bd), so biases
    and thresholds take the factor s, and codes come out as s z. Pursuit is not part of that layout.
    """
    s, method = np.float32(dictionary.scale), dictionary.method
    if method not in _THEIRS:
        raise usage(f"SAELens has no method {method}")
    arrays = {
        "W_enc": dictionary.E.T, "W_dec": dictionary.D, "b_dec": dictionary.mean + s * dictionary.bd,
    }  # fmt: skip
    if dictionary.gate is not None:
        arrays |= {"b_gate": s * dictionary.gate[0], "r_mag": dictionary.gate[1], "b_mag": s * dictionary.be}
    else:
        arrays["b_enc"] = s * dictionary.be
    if dictionary.theta is not None:
        arrays["threshold"] = s * dictionary.theta
    m, d = dictionary.D.shape
    config: dict[str, Any] = {
        "architecture": _THEIRS[method], "d_in": d, "d_sae": m, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"hook_name": _hook(dictionary.facts)},
    }  # fmt: skip
    if method == "topk":
        config |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": True}
    return {n: torch.from_numpy(np.ascontiguousarray(a, np.float32)) for n, a in arrays.items()}, config


def _hook(facts: dict[str, Any]) -> str | None:
    layer = facts.get("layer")
    names = {"resid": "hook_resid_post", "attn": "hook_attn_out", "mlp": "hook_mlp_out"}
    site = names.get(str(facts.get("site")))
    return f"blocks.{layer - 1}.{site}" if isinstance(layer, int) and layer > 0 and site else None


def config_text(config: dict[str, Any]) -> bytes:
    return json.dumps(config, indent=2).encode() + b"\n"
