"""How much one variable says about another: mutual information and rank correlations of many columns at once."""
