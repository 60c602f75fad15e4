"""Velocity fields of diffusion transformers at any resolution, without the libraries' own sampling loops."""
