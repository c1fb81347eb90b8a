"""PyTorch itself: the source's program, eager and compiled."""
