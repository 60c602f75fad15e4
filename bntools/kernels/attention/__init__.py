"""Keys and values of attention as small integers: levels, packed codes, and attention that reads them packed."""
