"""bntools: find, build, compress and measure the bottlenecks and dimensions of neural networks."""

__version__ = "0.1.0"
