"""Kinds of architectures: each maps a config and its names of weights to a `Decoder`."""
