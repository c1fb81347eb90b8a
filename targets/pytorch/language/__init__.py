"""Language models in PyTorch as transformers implements them: the "before" of every comparison."""
