"""Quantization that several runtimes share: the search, the statistics, SmoothQuant, formats."""
