"""Fixtures every test shares: the embedded model, tiny random models of many architectures, the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import forked

os.environ.setdefault("HF_HUB_OFFLINE", "1")

AT_IMPORT = ("HF_", "NUMBA_", "OMP_", "PYTHON", "TRITON_", "XDG_")  # variables that libraries read but once
SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 48, "tie_word_embeddings": False}

ARCHITECTURES: dict[str, dict[str, object]] = {
    "llama": GROUPED,
    "qwen2": {**GROUPED, "tie_word_embeddings": True},
    "qwen3": {**GROUPED, "head_dim": 8},
    "mistral": {**GROUPED, "head_dim": 8},
    "gemma": {**GROUPED, "head_dim": 8, "tie_word_embeddings": True},
    "phi": {**SMALL, "intermediate_size": 48},
    "opt": {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mixtral": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        **GROUPED,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "gpt_oss": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "bert": {**SMALL, "intermediate_size": 48, "max_position_embeddings": 64},
}


def make_model(kind: str, folder: Path, *, seed: int = 0, dtype: str = "float32") -> object:
    """Save a tiny random model of an architecture in Hugging Face layout; returns the transformers model."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(seed)
    settings = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, **ARCHITECTURES[kind]}
    config = transformers.AutoConfig.for_model(kind, **settings)
    auto = transformers.AutoModel if kind == "bert" else transformers.AutoModelForCausalLM
    model = auto.from_config(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="session")
def fresh():
    """Run `bntools ...` as a user would; returns the finished process with bytes on stdout and text on stderr."""

    def call(
        *words: object, data: bytes | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "bntools", *map(str, words)]
        source = {"input": data} if data is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=600,
            env={**os.environ, **environment},
            check=False,
            **source,
        )
        done.stderr = done.stderr.decode()
        return done

    return call


@pytest.fixture(scope="session")
def run(fresh):
    """The same, forked from a process that has imported the libraries, unless the environment concerns those."""
    server = forked.Server()

    def call(
        *words: object, data: bytes | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        if any(name.startswith(AT_IMPORT) for name in environment):
            return fresh(*words, data=data, **environment)
        status, out, error = server.run(list(map(str, words)), data, environment)
        return subprocess.CompletedProcess(words, status, out, error.decode())

    yield call
    server.close()


def peak_bytes(words: list[str]) -> int:
    """Most resident memory of a command, which must succeed.

    A small process between is waited for: what exec() replaces counts as a child's peak, and here that is pytest.
    """
    between = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    return int(
        subprocess.run([sys.executable, "-c", between, *words], capture_output=True, check=True).stdout
    )
