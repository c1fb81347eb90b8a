"""What a model's outputs mean, and how a candidate is compared with FP32 in those terms.

`roles.py` says what each output is, from FP32's own answers; one module a task compares; `judge.py` puts them together.
"""
