"""What the loss minds: Fisher sweeps, metrics, sensitivities."""
