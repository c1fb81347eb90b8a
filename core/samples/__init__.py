"""Samples: opened, checked, hashed, stored and streamed."""
