"""ONNX to TFLite in four precisions, without TensorFlow.

`environment.py` and `client.py` run in the tool; `convert.py` and what it imports run in the converter's own
environment; `interpret.py` runs on the device.
"""
