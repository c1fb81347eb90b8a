"""OpenVINO on the CPU: FP32, BF16 and INT8."""
