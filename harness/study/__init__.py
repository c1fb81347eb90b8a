"""A study: variants of a model and targets of each, from one file to one comparison."""
