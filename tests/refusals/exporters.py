"""Refusals of sources and their export."""

from __future__ import annotations

from refusals.entries import INSTALLS, Followed, Refusals

SOURCES = "tests/integration/test_source_refusals.py::"
TORCH_SOURCES = "tests/integration/test_torch_source_refusals.py::"
LOADING = "tests/integration/test_loading_refusals.py::"
COMPRESSION = "tests/integration/test_compression_refusals.py::"

TABLE: Refusals = {
    "exporters/exporting.py": {
        "a tolerance of {} makes no sense": Followed(SOURCES + "test_a_tolerance_is_positive"),
        "{} is a folder": Followed(SOURCES + "test_the_name_of_the_result_is_one_that_the_hint_gives"),
        "{} is no name for an ONNX model": Followed(SOURCES + "test_the_name_of_the_result_is_one_that_the_hint_gives"),
    },
    "exporters/file_kinds.py": {
        "{} is a git-LFS pointer, not the model itself": Followed(
            SOURCES + "test_a_file_that_only_has_the_name_is_fetched"
        ),
        "{} is empty (0 bytes)": Followed(SOURCES + "test_a_file_that_only_has_the_name_is_fetched"),
        "{} is not a regular file": Followed(SOURCES + "test_a_pipe_is_given_as_a_file"),
        "{} is {}, not an ONNX model": Followed(SOURCES + "test_a_file_that_only_has_the_name_is_fetched"),
    },
    "exporters/onnx/file.py": {
        "{} is damaged: it holds names that are not text": Followed(SOURCES + "test_a_damaged_model_is_exported_again"),
        "{} {}": Followed(SOURCES + "test_a_damaged_model_is_exported_again"),
        "{}: input {} has no shape, not even a rank": Followed(
            SOURCES + "test_an_input_without_a_rank_is_given_one_as_the_hint_writes"
        ),
        "{}: {} {} is {}, only dense tensors are supported": Followed(
            SOURCES + "test_a_graph_is_cut_before_a_sequence"
        ),
        "{}: {} {} is {}, only real numbers that numpy has are supported": Followed(
            SOURCES + "test_types_that_numpy_lacks_are_cast"
        ),
    },
    "exporters/onnx/follows.py": {
        "the ONNX form of {} does not follow it: output {} {}, over {} inferences": Followed(
            TORCH_SOURCES + "test_a_module_is_written_as_the_hint_says"
        ),
    },
    "exporters/onnx/validate.py": {
        "{}": Followed(SOURCES + "test_custom_operators_are_left_out"),
        "{} has opset {}; onnx {} knows opsets up to {}": Followed(
            SOURCES + "test_an_opset_of_the_future_is_exported_older"
        ),
    },
    "exporters/onnx/versions.py": {
        "{} has opset {}, of which {} does not know {}; it reads up to {}": Followed(
            "tests/unit/exporters/onnx/test_adapt.py::test_an_operator_that_the_older_opset_lacks_is_named"
        ),
    },
    "exporters/placing.py": {
        "{} exists": Followed(SOURCES + "test_what_lies_in_the_place_needs_overwrite_or_another_out"),
        "{} exists, which no earlier export left; the model has a file of that name too": Followed(
            SOURCES + "test_a_data_file_of_the_same_name_is_moved_away"
        ),
        "{} was changed after it was exported; the model has a file of that name again": Followed(
            LOADING + "test_a_damaged_export_of_a_program_is_made_again"
        ),
        "{} was changed after it was exported": Followed(
            SOURCES + "test_an_export_that_was_changed_is_replaced_or_left"
        ),
    },
    "exporters/source.py": {
        "no such source: {}": Followed(SOURCES + "test_a_source_that_is_not_there_is_given_as_one_of_three"),
        "{} is a folder": Followed(SOURCES + "test_a_folder_is_refused_with_the_models_in_it"),
        "{} is a folder of transformers, which is not read as such": Followed(
            SOURCES + "test_a_folder_of_transformers_is_read_by_the_factory_that_the_hint_writes"
        ),
        "{} is not a regular file": Followed(SOURCES + "test_a_pipe_is_given_as_a_file"),
        "{} is not a saved torch.export program: it is {}": Followed(
            SOURCES + "test_what_is_no_saved_program_is_saved_again"
        ),
        "{} is {}": Followed(SOURCES + "test_what_is_no_source_is_given_as_a_factory_or_a_model"),
    },
    "exporters/torch/export.py": {
        "torch.export cannot capture {}: {}": Followed(
            "tests/integration/test_torch_outputs.py::test_packing_is_named_and_what_the_hint_says_gives_the_same"
        ),
        "{} cannot be converted to ONNX: {}": Followed(TORCH_SOURCES + "test_a_module_is_written_as_the_hint_says"),
        "{} fails on its example inputs ({}): {}: {}": Followed(
            TORCH_SOURCES + "test_a_module_is_written_as_the_hint_says"
        ),
    },
    "exporters/torch/source.py": {
        "Python package {} is not installed; PyTorch sources need it": INSTALLS,
        "the example inputs of {} do not fit forward{}: {}": Followed(
            TORCH_SOURCES + "test_what_a_factory_gives_is_what_the_hint_says"
        ),
        "torch {} reads saved programs unsafely": INSTALLS,
        "{} cannot be read as a saved torch.export program: {}": Followed(
            "tests/integration/test_saved_programs.py::test_the_hint_for_a_file_that_cannot_be_read_helps"
        ),
        "{} failed: {}: {}": Followed(TORCH_SOURCES + "test_a_factory_is_called_without_arguments"),
        "{} gives a module with lazy layers, whose weights have no shapes before it was called": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} gives a TorchScript module, whose Python code is gone: torch.export cannot capture it": Followed(
            TORCH_SOURCES + "test_what_a_factory_gives_is_what_the_hint_says"
        ),
        "{} gives no example inputs, and there are no samples to take them from": Followed(
            TORCH_SOURCES + "test_example_inputs_come_from_the_factory_or_from_samples"
        ),
        "{} holds what may run code when torch reads it: {}{}": Followed(
            "tests/integration/test_saved_programs.py::test_who_trusts_has_torch_read_it"
        ),
        "{} returned {}, not an nn.Module": Followed(TORCH_SOURCES + "test_what_a_factory_gives_is_what_the_hint_says"),
        "{} was saved without example inputs, and there are no samples": Followed(
            TORCH_SOURCES + "test_a_program_without_example_inputs_takes_samples"
        ),
        "{}: the arrays {} do not match the inputs of {}: {}": Followed(
            TORCH_SOURCES + "test_arrays_are_named_after_the_parameters_of_forward"
        ),
    },
    "exporters/torch/worker.py": {
        "{}": Followed(SOURCES + "test_a_damaged_model_is_exported_again"),
        "{} has a data file of the name {}, which is to be a file of the export": Followed(
            SOURCES + "test_a_data_file_with_a_name_of_the_export_is_saved_under_another"
        ),
    },
}
