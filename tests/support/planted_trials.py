"""Trials drawn from a known law of test-time scaling, and the threshold that the law itself has."""

from __future__ import annotations

import numpy as np

LENGTH = 2000
SIZES = {  # layers, heads, key heads, hidden, inner: five sizes of one family, 0.5 to 28 G parameters
    "a": (24, 14, 2, 896, 4864), "b": (28, 12, 2, 1536, 8960), "c": (36, 16, 2, 2048, 11008),
    "d": (28, 28, 4, 3584, 18944), "e": (48, 40, 8, 5120, 24000),
}  # fmt: skip


def configs() -> dict[str, dict[str, object]]:
    """A config.json of each model."""
    return {
        name: {
            "model_type": "qwen2", "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "hidden_size": hidden, "intermediate_size": inner, "vocab_size": 151936,
            "tie_word_embeddings": False,
        }
        for name, (layers, heads, kv, hidden, inner) in SIZES.items()
    }  # fmt: skip


def chances(skill: np.ndarray, queries: int, rng: np.random.Generator) -> np.ndarray:
    """Chance [models, queries] that a trial is right: a logistic of the model's skill less the query's difficulty."""
    return 1 / (1 + np.exp(-(skill[:, None] - rng.normal(0, 2.0, queries))))


def skills(parameters: np.ndarray, knee: float) -> np.ndarray:
    """Skill grows with log size, six times as fast below the knee as above."""
    logs = np.log(parameters / knee)
    return np.where(logs < 0, 1.5 * logs, 0.25 * logs)


def trials(chance: np.ndarray, count: int, rng: np.random.Generator) -> list[dict[str, object]]:
    """Lines of runs: every model, every query, `count` trials of LENGTH tokens."""
    right = rng.random((*chance.shape, count)) < chance[:, :, None]
    return [
        {"model": name, "query": q, "trial": t, "tokens": LENGTH, "correct": bool(right[m, q, t])}
        for m, name in enumerate(SIZES)
        for q in range(chance.shape[1])
        for t in range(count)
    ]
