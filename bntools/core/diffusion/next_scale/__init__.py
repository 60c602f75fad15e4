"""Images drawn scale by scale: tokens, the transformer, its subnets, and the embedded model `var:`."""
