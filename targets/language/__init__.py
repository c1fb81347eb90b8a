"""Targets that generate text: their contract, their table, and the weights in few bits that runtimes share."""
