"""The intrinsic dimension of a learning problem, searched for by itself."""
