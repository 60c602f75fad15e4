"""Round-to-nearest quantization of the linear weights, per output or per input channel."""
