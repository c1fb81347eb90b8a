"""TensorRT and TensorRT for RTX: precision graphs, engines and sessions. Start with `target.py`."""
