"""PyTorch sources: loaded and exported, in a child process."""
