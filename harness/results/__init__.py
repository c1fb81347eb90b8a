"""What was measured, derived and typed; no words, no pictures."""
