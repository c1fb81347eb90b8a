"""Meters: energy of the host and of the GPU, the state of the card, and the power model where none is."""
