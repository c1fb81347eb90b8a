"""Small models with real weights and real data, installed with the package."""
