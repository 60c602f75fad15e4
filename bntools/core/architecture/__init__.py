"""What is known of transformers' models: their linears and how they are run."""
