"""Codes of activations in a sparse dictionary.

>>> import numpy as np
>>> from bntools.core.methods.sparse_dictionary import Dictionary
>>> D = np.eye(4, dtype="f")
>>> zero = np.zeros(4, "f")
>>> dictionary = Dictionary(D, zero, D, zero, zero, 1.0, {"method": "topk", "k": 2})
>>> from bntools.tools.sparse_encode import resolve
>>> how = resolve(dictionary, candidates=3, k=1, budget=None, signed=False)
>>> dictionary.encode(np.array([[0.0, 3.0, 1.0, 0.0]], "f"), how, 1).latents.tolist()
[1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.sparse_encode.encode import Request, pieces, resolve

__all__ = ["Request", "pieces", "resolve"]

__getattr__ = lazily(__name__, {"Request": ".encode", "pieces": ".encode", "resolve": ".encode"})
