"""Quantize a synthetic model of 7B shape from disk: seconds, bytes a second and memory, beside `cat`.

usage: python tests/benchmarks/large_model.py [LAYERS [DIR]] [--gptq]    32 layers are 13 GB; the default of 4 is 2 GB.

--gptq: the first four blocks by GPTQ on the default text instead, beside what --dry-run says of time and memory; this
takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bntools.core.artifact.writer import Writer
from bntools.core.text.documents import tiny_model_dir

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
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model_dir() / name, folder / name)


def timed(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def rounded(folder: Path, out: str, shards: list[str], size: int) -> None:
    """Rounding to nearest, along either dimension, beside `cat`."""
    print(f"{'':<34}{'seconds':>9}{'MB/s':>9}{'peak MB':>9}")
    plain = timed(["cat", *shards])
    print(f"{'cat':<34}{plain:>9.1f}{size / plain / 1e6:>9.0f}{'-':>9}")
    base = [sys.executable, "-m", "bntools", "quantize", str(folder), "--bits", "3", "--force"]
    for dim in ("oc", "ic"):
        seconds = timed([*base, "--dim", dim, "-q", "-o", out])
        print(
            f"{f'quantize --bits 3 --dim {dim}':<34}{seconds:>9.1f}{size / seconds / 1e6:>9.0f}{peak():>9.0f}"
        )


def peak() -> float:
    """MB of resident memory, of the largest of the processes so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


def calibrated(folder: Path, out: str) -> None:
    """GPTQ on four blocks, and its plan."""
    words = [sys.executable, "-m", "bntools", "quantize", str(folder), "--method", "gptq", "--bits", "3",
             "--include", r"layers\.[0-3]\.", "--force", "-q", "-o", out]  # fmt: skip
    plan = json.loads(subprocess.run([*words, "--dry-run", "--json"], check=True, capture_output=True).stdout)
    planned = plan["memory_bytes"] / 1e6
    print(f"{'':<34}{'seconds':>9}{'peak MB':>9}")
    print(f"{'--dry-run':<34}{plan['seconds']:>9.0f}{planned:>9.0f}", flush=True)
    seconds = timed(words)
    print(f"{'quantize --method gptq --bits 3':<34}{seconds:>9.0f}{peak():>9.0f}")
    print(f"{'relative':<34}{seconds / plan['seconds']:>9.2f}{peak() / planned:>9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("layers", type=int, nargs="?", default=4)
    parser.add_argument("dir", nargs="?")
    parser.add_argument("--gptq", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as scratch:
        folder, out = Path(scratch) / "model", f"{scratch}/q.safetensors"
        folder.mkdir()
        make(folder, given.layers)
        shards = sorted(map(str, folder.glob("*.safetensors")))
        size = sum(Path(path).stat().st_size for path in shards)
        print(f"{given.layers} layers, {size / 1e9:.1f} GB in {len(shards)} shards")
        if given.gptq:
            calibrated(folder, out)
        else:
            rounded(folder, out, shards, size)


if __name__ == "__main__":
    main()
