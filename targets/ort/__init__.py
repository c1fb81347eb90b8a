"""ONNX Runtime: on the CPU in FP32 and INT8, on CUDA in FP32 and FP16."""
