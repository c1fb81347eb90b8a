"""What runs in the TFLite converter's own environment, and nothing else."""
