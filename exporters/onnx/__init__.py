"""ONNX files: read, validated, and compared with the source that they were exported from."""
