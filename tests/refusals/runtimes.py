"""Refusals of single runtimes."""

from __future__ import annotations

from refusals.entries import GPU, INSTALLS, VENDOR, Followed, Refusals

HERE = "tests/integration/test_refusals.py::"
UNIT = "tests/unit/targets/test_refusals.py::"
PRECISION = "tests/integration/test_tensorrt_precision.py::"
RTX = "tests/integration/test_tensorrt_rtx.py::"
STAND_IN = "tests/integration/tensorrt_stand_in/"
LOADING = "tests/integration/test_loading_refusals.py::"
TFLITE = "tests/integration/test_tflite_refusals.py::"
WEIGHTS = "tests/integration/test_weight_targets.py::"
LANGUAGE = "tests/integration/test_language_targets.py::"
TFLITE_LANGUAGE = "tests/integration/test_tflite_language.py::"
ORT_LANGUAGE = "tests/integration/test_ort_language.py::"

TABLE: Refusals = {
    "targets/openvino/candidates.py": {
        "OpenVINO cannot run {} as NNCF quantizes it: {}": VENDOR,
    },
    "targets/openvino/convert.py": {
        "OpenVINO cannot convert {}: {}": Followed(HERE + "test_an_operator_that_openvino_lacks_runs_in_onnx_runtime"),
    },
    "targets/openvino/language/compress.py": {
        "NNCF cannot compress the weights ({}): {}": VENDOR,
        "no way of packing weights in {} bits keeps perplexity within {} on the tuning tokens; "
        "the closest has {} ({})": (
            Followed(LANGUAGE + "test_a_limit_that_no_packing_keeps_is_refused_and_more_bits_keep_a_possible_one")
        ),
    },
    "targets/openvino/language/convert.py": {
        "OpenVINO cannot convert {}: {}": VENDOR,
    },
    "targets/openvino/language/packed.py": {
        "OpenVINO turned the product with {} into something else, so that its matrix cannot be packed": VENDOR,
    },
    "targets/openvino/language/target.py": {
        "OpenVINO cannot load {}: {}": Followed(LANGUAGE + "test_a_damaged_artifact_is_built_again"),
        "{}": Followed(
            "tests/unit/targets/language/test_openvino.py::test_a_machine_without_bf16_takes_the_other_target"
        ),
    },
    "targets/openvino/planned.py": {
        "NNCF cannot store weights of {} in {}: {}": VENDOR,
    },
    "targets/openvino/quantize.py": {
        "NNCF cannot quantize {} ({}): {}": VENDOR,
    },
    "targets/openvino/session.py": {
        "{} holds integers beyond 32 bits, which OpenVINO would cut off on a CPU without a word": Followed(
            HERE + "test_integers_beyond_32_bits_run_in_another_runtime"
        ),
        "the recipe asks OpenVINO for {} = {}, which no build sets": Followed(
            LOADING + "test_a_recipe_of_a_stranger_is_built_here"
        ),
        "the recipe's compile_options are no table": Followed(LOADING + "test_a_recipe_of_a_stranger_is_built_here"),
        "{} is missing from the OpenVINO model, which has {} ports for {} names": VENDOR,
    },
    "targets/openvino/target.py": {
        "OpenVINO cannot load {}: {}": Followed(LOADING + "test_a_damaged_openvino_file_is_built_again"),
        "{}": Followed(UNIT + "test_a_machine_without_bf16_takes_the_other_openvino_targets"),
    },
    "targets/openvino/weights.py": {
        "NNCF cannot compress {} ({}): {}": VENDOR,
        "{} has no weights of a matrix, convolution or table to compress": Followed(
            WEIGHTS + "test_a_model_without_large_weights_is_taken_as_it_is"
        ),
    },
    "targets/ort/language/generator.py": {
        "{} tokens are more than the context of the model, {}": Followed(
            ORT_LANGUAGE + "test_a_prompt_beyond_the_context_is_refused_and_a_shorter_one_is_not"
        ),
    },
    "targets/ort/language/target.py": {
        "ONNX Runtime's GroupQueryAttention takes heads of a multiple of {} channels, and those of {} have {} "
        "here": Followed(
            "tests/unit/targets/ort/language/test_target.py::test_heads_that_the_fused_attention_does_not_compute_are_refused"
        ),
    },
    "targets/ort/cuda_session.py": {
        "ONNX Runtime keeps one inference a session in flight: it cannot use several streams": GPU,
        "the onnxruntime {} that is installed has no CUDA provider: it is the CPU package": INSTALLS,
        "onnxruntime-gpu {} does not tell where nodes run": INSTALLS,
        "ONNX Runtime cannot load {} on the GPU{}": GPU,
        "onnxruntime-gpu {} cannot start its CUDA provider, and would run on the CPU instead": INSTALLS,
        "{} of {} nodes fall back to the CPU, for CUDA has no kernel for them: {}": GPU,
    },
    "targets/ort/cuda_target.py": {
        "package onnxruntime-gpu is not installed": INSTALLS,
        "both onnxruntime and onnxruntime-gpu are installed, and the files of the CPU package lie on top": INSTALLS,
        "package onnxruntime-gpu is not installed: the ONNX Runtime here is {}, which has no CUDA provider": INSTALLS,
        "{}": GPU,
        "onnxruntime-gpu was built for CUDA {}, and the driver supports CUDA {}": INSTALLS,
    },
    "targets/ort/refusal.py": {
        "{} has nothing to quantize: {}": Followed(HERE + "test_the_other_int8_is_told_where_it_finds_layers"),
    },
    "targets/ort/target.py": {
        "ort-int8 needs calibration samples": Followed(HERE + "test_calibration_needs_samples"),
        "quantization needs opset {}; the model has {} and does not convert": Followed(
            HERE + "test_an_old_opset_that_does_not_convert_is_exported_again"
        ),
    },
    "targets/pytorch/language/weights.py": {
        "transformers cannot read {}: {}": VENDOR,
        "transformers cannot load {}: {}": Followed(LANGUAGE + "test_a_damaged_artifact_is_built_again"),
    },
    "targets/pytorch/program.py": {
        "torch {} reads saved programs unsafely": INSTALLS,
        "torch cannot read {}: {}": Followed(LOADING + "test_a_damaged_export_of_a_program_is_made_again"),
        "torch cannot load {}: it is damaged": Followed(LOADING + "test_a_damaged_program_is_built_again"),
        "{} holds what may run code when torch reads it: {}": Followed(
            LOADING + "test_a_damaged_program_is_built_again"
        ),
        "torch cannot capture the program{}: {}": Followed(
            LOADING + "test_an_operator_that_does_not_know_bf16_is_built_in_fp32"
        ),
        "torch {} cannot load {}: {}": Followed(LOADING + "test_a_damaged_program_is_built_again"),
    },
    "targets/pytorch/session.py": {
        "the GPU's memory does not suffice for this program": GPU,
        "{} failed in torch {}: {}": VENDOR,
        "the program cannot be captured as a CUDA graph: {}": GPU,
        "torch {} was built without CUDA": INSTALLS,
        "torch {} sees no GPU that it can use": GPU,
        "torch.compile on a GPU needs Python package triton": INSTALLS,
    },
    "targets/pytorch/target.py": {
        "{} needs the PyTorch source, and this source is ONNX": Followed(
            HERE + "test_torch_targets_take_the_source_of_an_onnx_model"
        ),
        "{} was asked for, but the model has no operator that computes in {}: no convolution, matrix product or "
        "recurrent layer": Followed(HERE + "test_a_module_without_a_product_stays_in_fp32"),
        "torch {} reads saved programs unsafely": INSTALLS,
        "torch.compile needs a C++ compiler, and {} is not there": INSTALLS,
        "torch.compile needs Python's headers, and {} is not there": INSTALLS,
    },
    "targets/tensorrt/engine.py": {
        "{}: the values of the input {} decide shapes inside the network, so one engine would need a range of values "
        "for it": Followed(STAND_IN + "test_refusals.py::test_an_input_that_decides_shapes_is_refused"),
        "{}: the {} {} would be {} in the engine; the model's signature says {}": Followed(
            RTX + "test_an_input_in_float64_is_given_as_the_hint_says"
        ),
        "this version of TensorRT for RTX does not build for compute capability {}": Followed(
            RTX + "test_capabilities_that_it_does_not_build_for"
        ),
        "TensorRT does not take the range {} of the input {}": Followed(
            RTX + "test_a_range_that_it_does_not_take_is_given_smaller"
        ),
    },
    "targets/tensorrt/execution.py": {
        "the engine has {} where the manifest's signature has {}": Followed(
            STAND_IN + "test_refusals.py::test_an_engine_of_other_outputs_is_built_again"
        ),
        "the shape of the output {} depends on the values of the inputs, not only on their shapes: it cannot be "
        "allocated beforehand": Followed(
            STAND_IN + "test_refusals.py::test_an_output_whose_shape_the_values_decide_is_cut_off"
        ),
    },
    "targets/tensorrt/flavours.py": {"{}": INSTALLS},
    "targets/tensorrt/portability.py": {
        "its manifest does not say which GPU and version it needs": Followed(
            STAND_IN + "test_refusals.py::test_a_manifest_that_does_not_say_what_it_needs_is_built_again"
        ),
        "{}": Followed(STAND_IN + "test_machines.py::test_an_engine_that_is_built_again_on_the_other_gpu_runs_there"),
        "the NVIDIA driver supports CUDA {}, and the installed {} is made for CUDA {}": INSTALLS,
    },
    "targets/tensorrt/proof.py": {
        "{}: a request for FP32 that yields {}: layers that multiply: {}": Followed(
            STAND_IN + "test_refusals.py::test_a_network_in_float16_is_exported_in_float32"
        ),
        "{}: a request for {} that yields an engine without it: layers that multiply: {}": Followed(
            STAND_IN + "test_refusals.py::test_a_request_for_fp16_that_yields_fp32_is_an_error"
        ),
    },
    "targets/tensorrt/recipes.py": {
        "TensorRT INT8 needs calibration samples": Followed(PRECISION + "test_refusals_say_what_to_do"),
        "TensorRT INT8: none of the model's {} layers with constant weights gains from INT8: for instance {}: "
        "{}": Followed(PRECISION + "test_refusals_say_what_to_do"),
        "TensorRT INT8: the model has no Conv, ConvTranspose, MatMul or Gemm with constant float32 weights: nothing to "
        "quantize": Followed(PRECISION + "test_refusals_say_what_to_do"),
        "TensorRT INT8: AutoCast renamed {} layers, such as {}": GPU,
        "TensorRT INT8 needs opset {}; the model has {} and does not convert": GPU,
    },
    "targets/tensorrt/refusals.py": {
        "{} cannot {}: {}": Followed(RTX + "test_too_small_a_workspace"),
        "{} cannot read the model: {}{}": Followed(
            RTX + "test_a_model_that_only_tensorrt_refuses_is_a_row_with_its_reason"
        ),
    },
    "targets/tensorrt/session.py": {
        "the engine was built with {} {}, and {} is installed": Followed(
            STAND_IN + "test_machines.py::test_another_version_is_told_before_anything_is_loaded"
        ),
        "the engine runs on compute capability {}, and CUDA's first visible GPU, {}, has {}": Followed(
            STAND_IN + "test_machines.py::test_an_engine_that_is_built_again_on_the_other_gpu_runs_there"
        ),
        "the input {} has the shape {}, and the engine takes {} (smallest:tuned for:largest)": Followed(
            STAND_IN + "test_running.py::test_shape_outside_the_range"
        ),
    },
    "targets/tensorrt/target.py": {
        "{} builds ahead of time for a GPU, and the profile {} names none": Followed(
            UNIT + "test_an_engine_ahead_of_time_is_built_for_a_profile_with_a_gpu"
        ),
        "{} does not build for compute capability {} ({})": Followed(
            UNIT + "test_a_gpu_that_rtx_does_not_build_for_has_the_other_targets"
        ),
        "{} builds on the GPU that it builds for, and the profile {} names none": Followed(
            STAND_IN + "test_machines.py::test_an_engine_for_a_gpu_that_is_not_here"
        ),
        "{}": GPU,
        "{} builds for the GPU that it runs on: {} here has compute capability {}, and the profile {} asks for "
        "{}": Followed(STAND_IN + "test_machines.py::test_an_engine_for_a_gpu_that_is_not_here"),
        "--option hardware-compatible={} makes engines for compute capability {}, and {} has {}": Followed(
            RTX + "test_an_option_that_leaves_the_gpu_out"
        ),
    },
    "targets/tflite/language/buffers.py": {
        "LiteRT gives no memory of {} bytes for a value of shape {}: status {}, type {}, {} bytes": VENDOR,
        "LiteRT cannot run the graph {} of the model": Followed(
            TFLITE_LANGUAGE + "test_a_token_that_the_model_does_not_know_is_refused_and_others_go_on"
        ),
    },
    "targets/tflite/language/four_bits.py": {
        "no matrix can have 4 bits in LiteRT: none has a multiple of {} rows": Followed(
            TFLITE_LANGUAGE + "test_4_bits_are_refused_where_no_block_is_filled_and_8_are_taken"
        ),
    },
    "targets/tflite/language/decoder.py": {
        "{}, which the tflite-* targets do not write": Followed(
            TFLITE_LANGUAGE + "test_an_operator_that_is_not_written_here_runs_elsewhere"
        ),
    },
    "targets/tflite/language/generator.py": {
        "LiteRT cannot load {}": Followed(TFLITE_LANGUAGE + "test_a_file_that_is_no_model_is_built_again"),
        "{} tokens are more than the context of the model, {}": Followed(
            TFLITE_LANGUAGE + "test_what_does_not_fit_the_context_is_refused_before_it_is_run"
        ),
    },
    "targets/tflite/client.py": {
        "the TFLite converter died with exit code {}": VENDOR,
        "TFLite cannot express operator {} (node {}){}": Followed(
            HERE + "test_an_operator_that_tflite_lacks_runs_elsewhere"
        ),
        "the TFLite converter's environment holds what was installed, and does not import": INSTALLS,
        "TFLite conversion failed: {}": VENDOR,
        "the TFLite converter's environment in {} {}": Followed(
            "tests/unit/targets/tflite/test_environment.py::test_a_damaged_one_is_noticed_and_made_again"
        ),
    },
    "targets/tflite/conversion.py": {
        "onnx2tf converts the model, but the file does not follow FP32: {}": VENDOR,
        "TFLite needs fixed shapes, and {} has dynamic ones besides the batch": Followed(
            TFLITE + "test_a_refusal_is_true_and_its_hint_helps"
        ),
    },
    "targets/tflite/environment.py": {
        "{} cannot be made in {}": Followed(
            "tests/unit/targets/tflite/test_environment.py::test_a_cache_that_cannot_be_written_is_told"
        ),
    },
    "targets/tflite/installation.py": {
        "the TFLite converter's environment in {} is damaged, and cannot be removed to make it again": INSTALLS,
        "the TFLite converter's environment cannot be made: {}": INSTALLS,
    },
    "targets/tflite/quantize.py": {
        "tflite-int8 needs calibration samples": Followed(HERE + "test_calibration_needs_samples"),
        "nothing in the model can be quantized to {} ({})": Followed(
            TFLITE + "test_a_refusal_is_true_and_its_hint_helps"
        ),
        "TFLite's quantizer fails on {}: {}": VENDOR,
    },
    "targets/tflite/target.py": {
        "no TFLite runtime is installed": INSTALLS,
        "the TFLite runtime is installed but does not import": INSTALLS,
    },
}
