"""What to say of results: which to ship, and what to beware of."""
