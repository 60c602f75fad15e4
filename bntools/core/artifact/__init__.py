"""The one stream format: headers, streams, reading and writing of safetensors."""
