"""How far a fit can be trusted: its scatter, and what the runs leave open."""
