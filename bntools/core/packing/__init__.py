"""How one weight is stored: grouped codes, entropy-coded levels, stacks."""
