"""ONNX to TFLite in four precisions, without TensorFlow.

`converter/` runs in an environment of its own, where modelwright is not installed: nothing here imports it, and this
file imports nothing. `session.py` runs there too, and on the device.
"""
