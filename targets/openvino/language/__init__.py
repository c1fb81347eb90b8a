"""Language models in OpenVINO: one stateful model, in floats and with weights in 8 and 4 bits."""
