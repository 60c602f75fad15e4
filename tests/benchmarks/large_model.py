"""Quantize a synthetic model of 7B shape from disk: seconds, bytes a second and memory, beside `cat`.

usage: python tests/benchmarks/large_model.py [LAYERS [DIR]]    32 layers are 13 GB; the default of 4 is 2 GB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bntools.core.writer import Writer

HIDDEN, INNER, VOCABULARY = 4096, 11008, 32000
SQUARE, UP, DOWN = (HIDDEN, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)
LAYER = {
    **{f"self_attn.{name}_proj": SQUARE for name in "qkvo"},
    "mlp.gate_proj": UP,
    "mlp.up_proj": UP,
    "mlp.down_proj": DOWN,
}


def weights(shape: tuple[int, int], pool: torch.Tensor, seed: int) -> torch.Tensor:
    """Gaussian numbers from a pool: their statistics are those of fresh ones, and they cost nothing."""
    count = shape[0] * shape[1]
    return pool.roll(seed * 7919).repeat(-(-count // pool.numel()))[:count].view(shape)


def make(folder: Path, layers: int) -> None:
    torch.manual_seed(0)
    pool = (torch.randn(1 << 26) * 0.02).bfloat16()
    home: dict[str, str] = {}

    def shard(name: str, tensors: dict[str, tuple[int, int]], vectors: list[str], seed: int) -> None:
        with Writer(str(folder / name), "tensors") as out:
            for tensor, shape in tensors.items():
                out.add(tensor, weights(shape, pool, seed))
            for tensor in vectors:
                out.add(tensor, torch.ones(HIDDEN).bfloat16())
        home.update(dict.fromkeys([*tensors, *vectors], name))

    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        norms = [f"{prefix}input_layernorm.weight", f"{prefix}post_attention_layernorm.weight"]
        shard(
            f"layer-{layer:02d}.safetensors",
            {f"{prefix}{k}.weight": v for k, v in LAYER.items()},
            norms,
            layer,
        )
    outer = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    shard("outer.safetensors", outer, ["model.norm.weight"], layers)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": home}))
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": layers, "num_attention_heads": 32, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def timed(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> None:
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        make(folder, layers)
        shards = sorted(map(str, folder.glob("*.safetensors")))
        size = sum(Path(path).stat().st_size for path in shards)
        print(f"{layers} layers, {size / 1e9:.1f} GB in {len(shards)} shards")
        print(f"{'':<34}{'seconds':>9}{'MB/s':>9}{'peak MB':>9}")
        plain = timed(["cat", *shards])
        print(f"{'cat':<34}{plain:>9.1f}{size / plain / 1e6:>9.0f}{'-':>9}")
        base = [sys.executable, "-m", "bntools", "quantize", str(folder), "--bits", "3", "--force"]
        for dim in ("oc", "ic"):
            seconds = timed([*base, "--dim", dim, "-q", "-o", f"{scratch}/q.safetensors"])
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
            print(
                f"{f'quantize --bits 3 --dim {dim}':<34}{seconds:>9.1f}{size / seconds / 1e6:>9.0f}{peak:>9.0f}"
            )


if __name__ == "__main__":
    main()
