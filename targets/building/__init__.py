"""Builds and proves one artifact; the same for all targets."""
