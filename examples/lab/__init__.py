"""A notebook on quantizing after training, with its outputs; `renew.py` runs it again."""
