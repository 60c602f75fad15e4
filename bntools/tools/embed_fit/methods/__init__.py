"""Methods: from a problem and a budget to a fitted lookup and its stored form."""
