"""What running a model costs, from its config and headers: FLOPs, bytes, cache, ceilings of tokens a second.

>>> from bntools.core.architecture.shapes.layers import model_shape
>>> from bntools.tools.cost import Settings, estimate, weights_of_config
>>> config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
...           "intermediate_size": 96, "vocab_size": 128}
>>> shape = model_shape(config)
>>> report = estimate(shape, weights_of_config(shape), [], Settings(batches=(1,), contexts=(32,)))
>>> report["model"]["parameters"]
86336
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.cost.ceilings import estimate
    from bntools.tools.cost.settings import Settings
    from bntools.tools.cost.weights import weights_of_config, weights_of_tensors


__all__ = ["Settings", "estimate", "weights_of_config", "weights_of_tensors"]

__getattr__ = lazily(
    __name__,
    {
        "estimate": ".ceilings",
        "Settings": ".settings",
        "weights_of_config": ".weights",
        "weights_of_tensors": ".weights",
    },
)
