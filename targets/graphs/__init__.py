"""ONNX graphs: read, walked, checked and evaluated."""
