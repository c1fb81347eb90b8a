"""Language models in ONNX Runtime on the CPU: fused attention over a cache, weights in 8 and 4 bits."""
