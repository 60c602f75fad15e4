"""Other people's formats of weights, read and written: GPTQ, compressed-tensors, GGUF."""
