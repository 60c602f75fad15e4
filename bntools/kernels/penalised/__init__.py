"""Regression under folded concave penalties: SCAD and MCP, and the lasso beside them."""
