"""bntools: find, build, compress and measure the bottlenecks and dimensions of neural networks."""

from bntools import _transformers

__version__ = "0.1.0"

_transformers.install()
