"""A model in a format other programs load.

>>> from bntools import open_model
>>> from bntools.tools.export import dense_tensors
>>> name, tensor = next(dense_tensors(open_model("default:")))
>>> name, tuple(tensor.shape)
('model.embed_tokens.weight', (1024, 160))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.export.dense import dense_config, dense_files, dense_tensors

__all__ = ["dense_config", "dense_files", "dense_tensors"]

__getattr__ = lazily(__name__, {"dense_config": ".dense", "dense_files": ".dense", "dense_tensors": ".dense"})
