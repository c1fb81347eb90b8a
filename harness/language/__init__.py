"""Language models: artifacts that generate, built, judged by what they write, and measured in turns."""
