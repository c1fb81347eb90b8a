"""NVIDIA's driver and management library, without a package of theirs."""
