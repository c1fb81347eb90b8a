"""ONNX models as exporters, targets and the TFLite converter all see them: graphs, names, files of weights."""
