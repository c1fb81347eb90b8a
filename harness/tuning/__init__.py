"""Searching how a model runs best on this machine: which artifact, and with which settings of its runtime."""
