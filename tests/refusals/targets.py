"""Refusals that are the same for all targets: of builds, graphs, options and the search."""

from __future__ import annotations

from refusals.entries import GPU, HUGE, INSTALLS, VENDOR, Followed, NotFollowed, Refusals

HERE = "tests/integration/test_refusals.py::"
UNIT = "tests/unit/targets/test_refusals.py::"
PRECISION = "tests/integration/test_tensorrt_precision.py::"
RTX = "tests/integration/test_tensorrt_rtx.py::"
LOADING = "tests/integration/test_loading_refusals.py::"
PROOF_FILES = "tests/unit/targets/building/test_proof_files.py::"
PLANS = "tests/integration/test_plan.py::"

TABLE: Refusals = {
    "targets/building/build.py": {
        "{} needs samples to calibrate on besides those that judge it; the file holds too few": Followed(
            HERE + "test_one_sample_is_too_few_to_calibrate"
        ),
        "{} cannot be built: {}": Followed(HERE + "test_torch_targets_take_the_source_of_an_onnx_model"),
        "{} exists and {}": Followed(HERE + "test_what_was_built_from_something_else_needs_overwrite_or_another_out"),
        "it runs the PyTorch program, and the source is ONNX": Followed(
            HERE + "test_torch_targets_take_the_source_of_an_onnx_model"
        ),
        "{} cannot be built here: {}": INSTALLS,
    },
    "targets/building/choices.py": {
        "--repair-plan repairs nothing without a plan": Followed(
            PLANS + "test_plans_that_do_not_fit_are_refused_before_anything_is_built"
        ),
        "{} cannot follow a plan of precisions: it has one precision for all layers": Followed(
            PLANS + "test_what_cannot_follow_a_plan_says_so"
        ),
        "{} is no option": Followed(UNIT + "test_options_written_as_told_are_taken"),
        "--option {}: {} is not among the targets": Followed(UNIT + "test_options_written_as_told_are_taken"),
        "none of the targets has an option {}": Followed(UNIT + "test_options_written_as_told_are_taken"),
    },
    "targets/building/doubts.py": {
        "all {} samples of --eval are those of --samples: what calibrates would judge itself": Followed(
            HERE + "test_samples_that_calibrate_do_not_judge"
        ),
        "FP32 itself gives no finite number on any of the {} samples: {}": Followed(
            HERE + "test_fp32_without_numbers_is_told_where_to_look"
        ),
    },
    "targets/building/evidence.py": {
        "{} is given both to calibrate and to judge": Followed(HERE + "test_samples_that_calibrate_do_not_judge"),
        "{}: FP32 takes {} s a sample, so {} samples would take more than {} minutes": Followed(
            "tests/unit/targets/building/test_slow_models.py::test_fewer_samples_of_the_part_that_takes_too_long_are_answered"
        ),
        "--state {}={}: {}": NotFollowed("the hint says which states cannot be chained at all: nothing is to be done"),
    },
    "targets/building/limits.py": {
        "{} cannot be held against --max-drop {}: {}": Followed(
            "tests/unit/targets/building/test_limits.py::test_what_cannot_run_here_is_built_without_a_limit"
        ),
        "{} cannot be held against --max-drop {}: FP32 gives no answer on the {} samples that judge": Followed(
            "tests/integration/test_limits.py::test_where_fp32_gives_no_answer_other_samples_are_asked_for"
        ),
    },
    "targets/building/proof_files.py": {
        "building {} left {}, a name that the artifact needs itself": Followed(
            PROOF_FILES + "test_a_build_cannot_leave_what_would_be_overwritten_after_the_proof"
        ),
        "{} is not any more what was built: {}": Followed(
            PROOF_FILES + "test_a_file_that_is_swapped_while_it_is_loaded_is_not_proved"
        ),
        "{} changed while it was proved: {}": Followed(
            PROOF_FILES + "test_a_file_that_comes_with_the_proof_is_no_part_of_it"
        ),
    },
    "targets/building/prove.py": {
        "{} was built, but its outputs do not follow FP32: {}": Followed(
            HERE + "test_a_model_that_loses_too_much_ships_in_float"
        ),
    },
    "targets/building/replacing.py": {
        "{} is {}, not the folder of an artifact": Followed(
            HERE + "test_a_file_in_the_place_of_an_artifact_is_moved_away"
        ),
        "{} is not replaced: no build made {}{} in it": Followed(
            HERE + "test_a_file_of_the_users_in_an_artifact_is_moved_away"
        ),
    },
    "targets/contract.py": {
        "builds only on the architecture it is for ({})": Followed(UNIT + "test_what_builds_at_home_only_builds_there"),
        "it needs {}, which this CPU lacks": Followed(UNIT + "test_an_artifact_runs_where_its_instructions_are"),
    },
    "targets/graphs/dtypes.py": {
        "{}: a request for FP16 that yields FP32: no layer of the graph computes in float16 ({})": Followed(
            PRECISION + "test_a_network_that_is_too_large_for_float16_throughout_is_refused"
        ),
        "{}: a request for FP16 of a network without a floating-point operator": Followed(
            RTX + "test_a_network_of_integers_has_no_fp16"
        ),
    },
    "targets/graphs/legality.py": {
        "{}: TensorRT does not take this graph: {}": Followed(
            PRECISION + "test_the_float_model_of_a_quantized_one_is_taken"
        )
    },
    "targets/graphs/rewrite.py": {
        "a model over 2 GiB at opset {} cannot be converted to opset {}": HUGE,
        "onnx cannot convert the model from opset {} to {}": Followed(
            UNIT + "test_a_model_of_a_later_opset_needs_no_converting"
        ),
    },
    "targets/graphs/run.py": {
        "ONNX Runtime cannot load {}{}": Followed(HERE + "test_an_operator_that_onnx_runtime_lacks_is_left_out"),
    },
    "targets/options.py": {
        "the runtime has no setting {}": Followed(
            "tests/unit/targets/test_options.py::test_settings_of_a_manifest_are_the_targets_own"
        ),
        "setting {} cannot be {}": Followed(
            "tests/unit/targets/test_options.py::test_settings_of_a_manifest_are_the_targets_own"
        ),
    },
    "targets/quantization/autocast.py": {
        "{}: NVIDIA ModelOpt AutoCast cannot cast this model to FP16: {}": GPU,
        "NVIDIA ModelOpt is not installed, or not with what its AutoCast needs": INSTALLS,
    },
    "targets/quantization/half.py": {
        "{}: the model is quantized already: node {} ({})": Followed(
            PRECISION + "test_the_float_model_of_a_quantized_one_is_taken"
        ),
        "{}: the graph does not follow the FP32 model on {} samples: {}": Followed(
            PRECISION + "test_without_samples_fp16_says_what_it_could_not_see"
        ),
    },
    "targets/quantization/own_scales.py": {
        "the plan would quantize a second time: the model is quantized already: {}": Followed(
            PLANS + "test_what_is_quantized_already_is_not_planned"
        ),
        "{} would quantize a second time: the model is quantized already: {}": Followed(
            "tests/integration/test_quantized_sources.py::"
            "test_what_could_only_quantize_again_refuses_and_names_what_does_not"
        ),
    },
    "targets/quantization/planned.py": {
        "nothing of the plan can be executed: all {} layers of it are in float here ({})": Followed(
            PLANS + "test_what_cannot_follow_a_plan_says_so"
        ),
    },
    "targets/quantization/statistics.py": {
        "calibration saw nothing but NaN or infinity in {}, made by {}": Followed(
            HERE + "test_calibration_takes_samples_with_numbers"
        ),
    },
    "targets/language/table.py": {
        "there is no target {} for language models": Followed(
            "tests/unit/targets/language/test_table.py::test_a_target_that_is_suggested_is_one"
        ),
    },
    "targets/quantization/trials.py": {
        "quantizing failed: {}: {}": VENDOR,
        "no way of quantizing gives usable numbers: {}": VENDOR,
    },
    "targets/readiness.py": {
        "package {} is not installed": INSTALLS,
        "package {} is needed, and {} is installed": INSTALLS,
        "Python package {} is not installed": INSTALLS,
        "{} is installed but does not import: there is no Python package {}": INSTALLS,
        "{} is installed but does not import": INSTALLS,
        "its manifest asks for {} {}, which is no version": Followed(
            LOADING + "test_a_manifest_that_asks_for_no_version_is_built_again"
        ),
        "it needs {} {}, and {} is installed": INSTALLS,
    },
    "targets/table.py": {
        "there is no target {}": Followed(UNIT + "test_a_target_that_is_suggested_is_one"),
    },
}
