"""TensorRT and TensorRT for RTX, in `target.py`.

    ONNX -- precision --> graph -- engine --> engine -- proof --> artifact -- session --> outputs

- `precision` makes the graph, by `autocast` (FP16), `pair_plan` and `quantization` (INT8), and `emulation` of it for
  ONNX Runtime; `graph_check` finds what TensorRT rejects, `graph_types` reads types and `work` multiplications.
- `engine` builds, with the `timing_cache`; `refusals` says in words what the vendor refused.
- `proof` compares the engine's `layers` with what was asked for.
- `session` runs engines, each stream by an `execution`; `portability` says before that whether a machine can.
- `flavours` holds all that the two do differently.
"""
