"""A residual CNN that reads handwritten digits, with its weights and its held-out samples.

``model.py:create_model`` is a source that every exporter accepts; ``samples.npz`` holds the images to
calibrate and to judge with; ``train.py`` makes both again.
"""
