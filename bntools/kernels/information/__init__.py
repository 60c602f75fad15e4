"""Estimators of entropy and mutual information on arrays: neighbours, kernels, bins and spectra."""
