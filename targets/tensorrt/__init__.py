"""TensorRT and TensorRT for RTX, in `target.py`.

    ONNX -- recipes --> graph -- engine --> engine -- proof --> artifact -- session --> outputs

- `recipes` makes the graph: FP16 by `quantization/half`, INT8 by `pair_plan` and `quantize`, and what ONNX Runtime
  evaluates in its place by `graphs/emulation`; `graphs/legality` finds what TensorRT rejects.
- `engine` builds, with the `timing_cache`; `refusals` says in words what the vendor refused.
- `proof` compares the engine's `layers` with what was asked for.
- `session` runs engines, each stream by an `execution`; `portability` says before that whether a machine can.
- `flavours` holds all that the two do differently.
"""
