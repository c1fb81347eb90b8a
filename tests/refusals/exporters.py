"""Refusals of sources and their export."""

from __future__ import annotations

from refusals.entries import INSTALLS, Followed, Refusals

SOURCES = "tests/integration/test_source_refusals.py::"
TORCH_SOURCES = "tests/integration/test_torch_source_refusals.py::"
LOADING = "tests/integration/test_loading_refusals.py::"
TEXTS = "tests/integration/test_text_model_refusals.py::"
HUB = "tests/integration/test_hub.py::"
PICKLED = "tests/integration/test_pickled_weights.py::"
LANGUAGE = "tests/integration/test_language_refusals.py::"
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
    "exporters/language/config.py": {
        "{} is not a config that transformers reads": Followed(
            LANGUAGE + "test_a_config_with_values_that_no_model_has_is_refused"
        ),
        "{}: {}: expected {}, found {}": Followed(LANGUAGE + "test_a_config_with_values_that_no_model_has_is_refused"),
        "{}: {}: expected a whole number of at most {}, found {}": Followed(
            LANGUAGE + "test_a_config_with_values_that_no_model_has_is_refused"
        ),
        "{}: quantization_config: the model is quantized already, by {}": Followed(
            LANGUAGE + "test_a_model_that_was_quantized_is_refused_by_its_method"
        ),
    },
    "exporters/language/data_file.py": {
        "{} lacks {} of the {} tensors that its config.json asks for: {}": Followed(
            LANGUAGE + "test_weights_of_another_model_are_named"
        ),
        "{} has tensors that do not fit its config.json: {}": Followed(
            LANGUAGE + "test_weights_of_another_model_are_named"
        ),
        "{} has weights of the type {}, expected floats: it is quantized already": Followed(
            LANGUAGE + "test_quantized_weights_are_replaced_by_those_before"
        ),
    },
    "exporters/language/exporting.py": {
        "{} holds {}, and no export of a language model: nothing there is replaced": Followed(
            LANGUAGE + "test_what_lies_at_the_place_is_not_replaced"
        ),
        "{} exists: nothing there is replaced": Followed(LANGUAGE + "test_a_folder_is_made_where_nothing_lies"),
        "{} is a file, not a folder": Followed(LANGUAGE + "test_what_lies_at_the_place_is_not_replaced"),
        "{} holds another export": Followed(
            "tests/integration/test_language_export.py::test_a_folder_becomes_a_graph_that_answers_as_pytorch_does"
        ),
    },
    "exporters/language/follows.py": {
        "the graph does not follow PyTorch: of {} greedy tokens number {} is one that PyTorch puts {} of its "
        "largest logit below its own": Followed(LANGUAGE + "test_answers_that_part_from_the_source_fail"),
        "the graph gives logits that are not finite on {}": Followed(
            LANGUAGE + "test_answers_that_part_from_the_source_fail"
        ),
        "PyTorch itself gives logits that are not finite on {}: weights of the model are not finite, or are so large "
        "that float32 overflows": Followed(LANGUAGE + "test_a_source_that_answers_nonsense_is_blamed_itself"),
        "the graph does not follow PyTorch: on {} its logits are off by {}, relatively, expected at most {}": Followed(
            LANGUAGE + "test_answers_that_part_from_the_source_fail"
        ),
    },
    "exporters/language/gguf_file.py": {
        "{} is no GGUF file: it does not begin with GGUF": Followed(
            LANGUAGE + "test_a_gguf_file_that_is_not_read_gives_way_to_the_folder"
        ),
        "{} is not a GGUF file that transformers reads": Followed(
            LANGUAGE + "test_a_gguf_file_that_is_not_read_gives_way_to_the_folder"
        ),
        "{} lacks {} of the tensors that its kind of model has, or has them in other shapes: {}": Followed(
            LANGUAGE + "test_a_gguf_file_that_is_not_read_gives_way_to_the_folder"
        ),
    },
    "exporters/language/kinds/shape.py": {
        "{}: {} asks for {}, which is not exported": Followed(LANGUAGE + "test_what_is_not_exported_is_taken_out"),
    },
    "exporters/language/kinds/table.py": {
        "{} has {}{}; language models that are exported: {}": Followed(
            LANGUAGE + "test_an_unknown_architecture_is_named_with_those_that_are_known"
        ),
    },
    "exporters/language/reference.py": {
        "{} cannot be loaded by transformers, whose answers its export is held against": Followed(
            LANGUAGE + "test_what_transformers_cannot_load_is_mended"
        ),
    },
    "exporters/language/rope.py": {
        "config.json: rope_parameters: rope_type {} is not known; known are {}": Followed(
            LANGUAGE + "test_a_rotary_embedding_that_changes_with_the_text_is_refused"
        ),
        "config.json: rope_parameters: rope_theta: expected a number above 1, found {}": Followed(
            LANGUAGE + "test_a_config_with_values_that_no_model_has_is_refused"
        ),
        "config.json: rope_parameters: {}: expected a number greater than 0, found {}": Followed(
            LANGUAGE + "test_numbers_of_a_rotary_embedding_that_make_no_sense_are_refused"
        ),
        "config.json: rope_parameters: transformers computes no frequencies of rope_type {}": Followed(
            LANGUAGE + "test_numbers_of_a_rotary_embedding_that_make_no_sense_are_refused"
        ),
        "config.json: rope_parameters: expected {} frequencies that are finite, and {} come of rope_type {}, scaled by "
        "{}": Followed(LANGUAGE + "test_numbers_of_a_rotary_embedding_that_make_no_sense_are_refused"),
    },
    "exporters/hub.py": {
        "Python package {} is not installed; models of a hub need it": INSTALLS,
        "no such source: there is no file or folder {}, and {} has no such model, or shows it to its owner "
        "alone": Followed(HUB + "test_what_cannot_be_had_is_told_and_another_name_can"),
        "no such source: there is no file or folder {}, and {} cannot be asked for a model of that name": Followed(
            HUB + "test_without_a_network_a_folder_serves_and_so_does_the_cache"
        ),
        "{} is given only to users that its maker let in": Followed(
            HUB + "test_what_cannot_be_had_is_told_and_another_name_can"
        ),
        "{} is no model of transformers: it has no {}": Followed(
            HUB + "test_a_model_that_is_none_of_transformers_is_told"
        ),
    },
    "exporters/language/pickled.py": {
        "{} names {}, which is not in the folder": Followed(PICKLED + "test_damaged_files_are_downloaded_again"),
        "{} holds something else than weights, or a part of them: it is not read, as that would run its code": Followed(
            PICKLED + "test_a_pickle_that_would_run_code_is_refused_by_those_who_trust_it_too"
        ),
        "{} holds no weights by name": Followed(PICKLED + "test_damaged_files_are_downloaded_again"),
        "{}: weights of the type {} are not read": Followed(PICKLED + "test_damaged_files_are_downloaded_again"),
    },
    "exporters/language/safetensors_files.py": {
        "{} became shorter while it was read": Followed(LANGUAGE + "test_a_file_that_shrinks_is_downloaded_again"),
        "{}: weight_map: expected the name of a file for each tensor": Followed(
            LANGUAGE + "test_an_index_that_names_no_files_of_the_folder_is_refused"
        ),
        "{} lists tensors that its files lack: {}": Followed(
            LANGUAGE + "test_an_index_that_names_no_files_of_the_folder_is_refused"
        ),
        "{} is a git-LFS pointer, not the weights themselves": Followed(
            LANGUAGE + "test_damaged_weights_are_downloaded_again"
        ),
        "{} is no safetensors file: its header is no JSON": Followed(
            LANGUAGE + "test_damaged_weights_are_downloaded_again"
        ),
        "{} is no safetensors file: its header is no object": Followed(
            LANGUAGE + "test_damaged_weights_are_downloaded_again"
        ),
        "{}: the tensor {} does not lie inside the file as its header says": Followed(
            LANGUAGE + "test_damaged_weights_are_downloaded_again"
        ),
        "{} is no safetensors file, or a part of one: its header does not fit": Followed(
            LANGUAGE + "test_damaged_weights_are_downloaded_again"
        ),
        "{} has no weights: expected {} or {}": Followed(LANGUAGE + "test_pickled_weights_are_saved_again"),
        "{} has its weights in {}, which runs code when it is read": Followed(
            LANGUAGE + "test_pickled_weights_are_saved_again"
        ),
        "{} names {} files of weights, and of these {} are not in the folder: {}{}": Followed(
            LANGUAGE + "test_a_missing_shard_is_named_and_downloaded"
        ),
    },
    "exporters/language/worker.py": {
        "exporting {} would take about {} GB of memory, by estimate, of which {} GB are free": Followed(
            LANGUAGE + "test_too_little_memory_is_said_with_the_estimate"
        ),
        "no such file: {}": Followed(LANGUAGE + "test_a_file_that_is_not_there_is_named"),
        "{} is not a file that transformers reads": Followed(
            LANGUAGE + "test_a_generation_config_that_transformers_cannot_read_is_removed"
        ),
        "{} has no {}: an artifact carries its tokenizer": Followed(
            LANGUAGE + "test_a_folder_without_a_tokenizer_is_given_one"
        ),
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
        "{} is a language model, which is not taken here": Followed(
            LANGUAGE + "test_a_language_model_is_not_taken_for_another_source"
        ),
        "no such source: {}": Followed(SOURCES + "test_a_source_that_is_not_there_is_given_as_one_of_three"),
        "{} is a folder": Followed(SOURCES + "test_a_folder_is_refused_with_the_models_in_it"),
        "{} is not a regular file": Followed(SOURCES + "test_a_pipe_is_given_as_a_file"),
        "{} is not a saved torch.export program: it is {}": Followed(
            SOURCES + "test_what_is_no_saved_program_is_saved_again"
        ),
        "{} is {}": Followed(SOURCES + "test_what_is_no_source_is_given_as_a_factory_or_a_model"),
    },
    "exporters/transformers/loading.py": {
        "Python package {} is not installed; folders of transformers need it": INSTALLS,
        "{} cannot be loaded by transformers: {}": Followed(
            TEXTS + "test_weights_of_other_shapes_are_told_as_transformers_tells_them"
        ),
        "{} lacks {} weights of its model, such as {}: transformers would take random ones": Followed(
            TEXTS + "test_weights_that_are_missing_are_not_taken_at_random"
        ),
        "{}: transformers {} knows no model_type {}": Followed(
            TEXTS + "test_what_is_not_exported_is_read_by_a_factory"
        ),
        "{}: {} takes no {}": Followed(TEXTS + "test_a_model_without_an_attention_mask_is_read_by_a_factory"),
    },
    "exporters/transformers/dense.py": {
        "{} names the layer {}, and {}/{} is not there": Followed(
            TEXTS + "test_a_layer_behind_the_pooling_has_its_safetensors"
        ),
        "{} has no in_features and out_features": Followed(
            TEXTS + "test_a_layer_behind_the_pooling_has_its_safetensors"
        ),
        "{} asks for {} of {}: carried out are {} of {}": Followed(
            TEXTS + "test_what_is_not_exported_is_read_by_a_factory"
        ),
        "{} does not hold the layer's weights": Followed(TEXTS + "test_a_layer_behind_the_pooling_has_its_safetensors"),
    },
    "exporters/transformers/pooling.py": {
        "{} is no list of modules of sentence-transformers: {}": Followed(
            TEXTS + "test_pooling_is_what_sentence_transformers_wrote"
        ),
        "{} lists {} in {}: carried out are Transformer in the folder itself, Pooling, Dense, Normalize": Followed(
            TEXTS + "test_what_is_not_exported_is_read_by_a_factory"
        ),
        "{} names {}, which is not there": Followed(TEXTS + "test_pooling_is_what_sentence_transformers_wrote"),
        "{} says none of the ways to pool that are known: {}": Followed(
            TEXTS + "test_pooling_is_what_sentence_transformers_wrote"
        ),
    },
    "exporters/transformers/source.py": {
        "{} has no vocab_size: its model reads no texts": Followed(
            TEXTS + "test_what_is_not_exported_is_read_by_a_factory"
        ),
        "{} names no architecture: whether its model gives classes or vectors is not known": Followed(
            TEXTS + "test_a_config_without_an_architecture_is_told_one"
        ),
        "{} names the architecture {}; of transformers, causal language models are exported, and architectures that "
        "end with {}, without a decoder": Followed(TEXTS + "test_what_is_not_exported_is_read_by_a_factory"),
        "{}: auto_map names Python code in the folder, which runs when the model is read": Followed(
            TEXTS + "test_code_of_a_folder_runs_only_where_it_is_trusted"
        ),
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
