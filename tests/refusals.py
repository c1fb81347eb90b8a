"""Every refusal of compression, samples, exporters and targets with a hint, and the test that does what the hint says.

`test_refusal_table` holds this against what `refusal_finder` finds in the code: a refusal that is not here fails it,
and so does one that is gone. A refusal is named by its file and its message, `{}` for each value in it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Followed:
    """A test that provokes the refusal, does what its hint says, and finds that it helps."""

    test: str


@dataclass(frozen=True)
class NotFollowed:
    """Why no test does what the hint says."""

    reason: str


HERE = "tests/integration/test_refusals.py::"
UNIT = "tests/unit/targets/test_refusals.py::"
SAMPLES = "tests/unit/core/samples/test_refusals.py::"
FITTING = "tests/unit/core/samples/test_fitting.py::"
DATASETS = "tests/unit/core/samples/test_datasets.py::"
LOOSE = "tests/unit/core/samples/test_loose_arrays.py::"
FOLDERS = "tests/unit/core/samples/pictures/test_folder.py::"
SETTLING = "tests/unit/core/samples/pictures/test_settle.py::"
PICTURES = "tests/unit/core/samples/pictures/test_store.py::"
SOURCES = "tests/integration/test_source_refusals.py::"
TORCH_SOURCES = "tests/integration/test_torch_source_refusals.py::"
PRECISION = "tests/integration/test_tensorrt_precision.py::"
RTX = "tests/integration/test_tensorrt_rtx.py::"
STAND_IN = "tests/integration/tensorrt_stand_in/"
LOADING = "tests/integration/test_loading_refusals.py::"
PROOF_FILES = "tests/unit/targets/building/test_proof_files.py::"
TFLITE = "tests/integration/test_tflite_refusals.py::"
COMPRESSION = "tests/integration/test_compression_refusals.py::"
COMPRESS = "tests/integration/test_compress.py::"
HEALING = "tests/integration/test_healing.py::"
DISTILLATION = "tests/integration/test_distillation.py::"
METHODS = "tests/unit/compression/test_methods.py::"
WEIGHTS = "tests/integration/test_weight_targets.py::"
PLANS = "tests/integration/test_plan.py::"
GPU = NotFollowed("needs an NVIDIA GPU, or a fault of one; what is said is tested on stand-ins")
INSTALLS = NotFollowed("the hint installs or updates software of the machine, whose absence is only pretended in tests")
VENDOR = NotFollowed(
    "only a fault inside a vendor's toolchain leads here; what the hint names is built by the contract suite"
)
HUGE = NotFollowed("only a model over 2 GiB leads here")

TABLE: dict[str, dict[str, Followed | NotFollowed]] = {
    "compression/augmentation.py": {
        "--augment {} failed: {}: {}": Followed(HEALING + "test_what_makes_no_batch_is_refused"),
        "--augment {} returned {}, and {} went in": Followed(HEALING + "test_what_makes_no_batch_is_refused"),
    },
    "compression/checkpoint.py": {
        "{} cannot be read: {}": Followed(COMPRESS + "test_a_damaged_checkpoint_is_named"),
        "{} holds an unfinished compression of another source, or with other methods, data or settings": Followed(
            COMPRESSION + "test_an_unfinished_compression_is_not_gone_on_with_as_another"
        ),
    },
    "compression/compressing.py": {
        "{} exists, and no compression wrote it": Followed(
            COMPRESSION + "test_what_no_compression_wrote_is_replaced_only_when_told"
        ),
        "{} is an ONNX model, which nothing here can train": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} loses {} points ({} on {} samples), and --max-drop allows {}": Followed(
            COMPRESS + "test_a_limit_that_is_missed_delivers_nothing_and_a_higher_one_what_was_trained"
        ),
        "{}: noise has no answers to learn": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/data.py": {
        "{} holds inputs only: there is nothing to train towards": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} holds {} samples, of which each is {} points: --max-drop says nothing on so few": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} lacks {}, which {} has: nothing there says what is right": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{}: all labels are {}, which any network learns without looking at its inputs": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{}: the arrays do not match the network's inputs: {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{}: the arrays hold different numbers of samples, or none ({})": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{}: {} has the shape {}, the network takes {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{}: {} holds NaN or infinity, first in row {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{}: {} is {}, the network takes {} ({})": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/distil.py": {
        "--match {}: features {} cannot match {}": Followed(
            DISTILLATION + "test_a_layer_that_is_not_there_is_refused_with_those_that_are"
        ),
        "--match: {} has no layer {}": Followed(COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"),
        "the student {} answers {} where the teacher answers {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "the student {} fails on the teacher's inputs: {}: {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "the student {} takes {}, and the teacher {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/gradients.py": {
        "no weight of {} decides the loss": Followed(COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"),
        "{} fails while it is trained, on {} sample{}: {}: {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/low_rank.py": {
        "no layer of {} is large enough for low-rank at {}: a rank of {} at least has to be left, and the layers that "
        "give the outputs stay": Followed(COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"),
        "{} is a saved program: its layers are gone, and none can become two": Followed(
            COMPRESSION + "test_a_saved_program_has_no_layers_and_its_factory_has"
        ),
    },
    "compression/magnitude.py": {
        "{} of the {} weights of {} in convolutions and linear layers makes {} zeros": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/methods.py": {
        "no method is named": Followed(METHODS + "test_no_method_is_refused"),
        "{} after qat: the integers that were trained would not be those that run": Followed(
            METHODS + "test_qat_comes_last_and_once"
        ),
        "{} after {}: shapes change, and the zeros would be trained away": Followed(
            METHODS + "test_what_changes_shapes_comes_before_what_makes_zeros"
        ),
        "{} is no method of compression": Followed(METHODS + "test_what_is_no_method_is_refused_with_one_that_is"),
        "{}: {} is no ratio: a share between 0 and 1 goes, and not all of it": Followed(
            METHODS + "test_what_is_no_method_is_refused_with_one_that_is"
        ),
        "{}: {} takes nothing after it": Followed(METHODS + "test_what_is_no_method_is_refused_with_one_that_is"),
    },
    "compression/network.py": {
        "{} has inputs whose first axis is no batch, such as a state: it is not trained here": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} takes inputs that are no tensors, or tensors in lists, which make no batch": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/objective.py": {
        "{}: labels are {}, and classes are whole numbers from 0": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "labels go from {} to {}, and the network has the classes 0 to {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "no output [batch, classes, ...] belongs to labels {}: the outputs are {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "the loss of {} is {} on {} samples of {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "the loss of {} on the first samples of {} is {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "the loss {} failed: {}: {}": Followed(COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"),
        "the loss {} returned {}, not one floating-point number as a tensor": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "the targets ({}) do not have the shapes of the outputs ({}), in their order": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "the training data have no `labels`, which cross-entropy needs (there are: {})": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "the training data have no `target_...`, which mse needs": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} fails on the first samples of {} ({}): {}: {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/qat.py": {
        "Python package {} is not installed; qat needs it": INSTALLS,
        "{} cannot be captured for training with a batch of any size: {}": Followed(
            COMPRESSION + "test_a_network_of_one_batch_is_not_trained_for_quantization"
        ),
        "{} cannot be prepared for training with quantization: {}": VENDOR,
        "{} has no convolution or linear layer that can be quantized": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/saving.py": {
        "{} cannot be captured as a program, and so not be saved after its training: {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/settings.py": {
        "--batch 0 trains nothing": Followed(METHODS + "test_settings_that_make_no_sense_are_refused"),
        "--bits {} are no widths": Followed(METHODS + "test_settings_that_make_no_sense_are_refused"),
        "--budget {} is no span of time": Followed(METHODS + "test_what_is_no_budget_is_refused"),
        "--loss {} is no loss": Followed(METHODS + "test_settings_that_make_no_sense_are_refused"),
        "--lr 0 trains nothing": Followed(METHODS + "test_settings_that_make_no_sense_are_refused"),
        "--match {} is no pair of layers": Followed(METHODS + "test_settings_that_make_no_sense_are_refused"),
        "--max-drop needs data that judges: what is held back of --train chooses among epochs already": Followed(
            METHODS + "test_a_limit_is_taken_where_other_data_judge"
        ),
    },
    "compression/structured.py": {
        "Python package {} is not installed; prune:structured needs it": INSTALLS,
        "nothing can be removed from {} at {}: of every group of channels a multiple of {} is left, and layers that "
        "give the outputs stay": Followed(COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"),
        "{} cannot be traced for pruning: {}: {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} is a saved program: its layers are gone, and nothing can be removed from them": Followed(
            COMPRESSION + "test_a_saved_program_has_no_layers_and_its_factory_has"
        ),
    },
    "compression/training.py": {
        "the loss is {} in epoch {}, batch {}: training has run away": Followed(
            COMPRESS + "test_training_that_runs_away_is_refused_and_a_lower_rate_helps"
        ),
        "the weights in the checkpoint do not fit the network: its code has changed since": Followed(
            COMPRESSION + "test_weights_of_other_code_are_not_gone_on_with"
        ),
        "{} has no weights to train": Followed(COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"),
    },
    "compression/two_four.py": {
        "{} has no layer whose input channels come in fours: 2:4 prunes nothing in it": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
    },
    "compression/worker.py": {
        "all {} samples of {} are in {} too: they judge nothing": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} holds the result of another source, or of other methods, data or settings": Followed(
            COMPRESS + "test_another_result_is_replaced_only_when_told"
        ),
    },
    "core/samples/archives.py": {
        "no such sample file: {}": Followed(SAMPLES + "test_a_file_that_is_not_there_is_given_as_one_of_three"),
        "{} cannot be read as an array: {}": Followed(LOOSE + "test_files_that_differ_or_are_damaged_are_saved_again"),
        "{} cannot be read as samples: {}": Followed(SAMPLES + "test_a_damaged_file_is_saved_again"),
        "{} holds no arrays": Followed(SAMPLES + "test_a_damaged_file_is_saved_again"),
        "{} is no sample file, which is one whose name ends in .npz": Followed(
            SAMPLES + "test_another_kind_of_file_is_saved_with_numpy"
        ),
    },
    "core/samples/datasets.py": {
        "{}: sample {} holds {} pictures, {}": Followed(DATASETS + "test_items_for_several_inputs_are_dicts"),
        "{}: sample {} is a picture, and nothing says what the model was trained on": Followed(
            DATASETS + "test_a_picture_needs_preprocessing"
        ),
        "{}: sample {} does not say which of the inputs {} it is for": Followed(
            DATASETS + "test_items_for_several_inputs_are_dicts"
        ),
    },
    "core/samples/functions.py": {
        "{}: the arrays of batch {} hold different numbers of samples, or none ({})": Followed(
            SAMPLES + "test_batches_get_the_axis_of_their_samples"
        ),
        "{} returns a {}, not samples": Followed(SAMPLES + "test_functions_that_are_mended_as_told_are_taken"),
        "{} returns one dict; it must yield or return many, one a sample": Followed(
            SAMPLES + "test_one_dict_of_whole_arrays_is_saved"
        ),
        "{} yields no samples": Followed(SAMPLES + "test_functions_that_are_mended_as_told_are_taken"),
        "{}: sample {} has {}; sample 0 has {}": Followed(SAMPLES + "test_functions_that_are_mended_as_told_are_taken"),
        "{}: sample {} is a {}, not a dict keyed by input name": Followed(
            SAMPLES + "test_functions_that_are_mended_as_told_are_taken"
        ),
        "{}: {} of sample {} is {} {}, of sample 0 {} {}": Followed(
            HERE + "test_samples_of_several_sizes_are_padded_or_given_one_size_at_a_time"
        ),
        "{}: {} of sample {} is {}, not numbers": Followed(
            SAMPLES + "test_functions_that_are_mended_as_told_are_taken"
        ),
        "what {} yields does not name the model's inputs, which are not known yet": Followed(
            DATASETS + "test_what_does_not_name_the_input_waits_for_the_model"
        ),
    },
    "core/samples/loose_arrays.py": {
        "{} is one array, and the model takes {}": Followed(LOOSE + "test_several_inputs_are_saved_in_one_file"),
        "{} does not say what the model's input is called": Followed(
            LOOSE + "test_before_the_model_is_known_it_is_saved_with_its_name"
        ),
        "{} holds {} {}, {} {} {}": Followed(LOOSE + "test_files_that_differ_or_are_damaged_are_saved_again"),
        "{} has the shape {}, the model expects {}": Followed(
            LOOSE + "test_files_that_differ_or_are_damaged_are_saved_again"
        ),
    },
    "core/samples/materialize.py": {
        "no such sample file: {}": Followed(SAMPLES + "test_a_file_that_is_not_there_is_given_as_one_of_three"),
        "random samples need the model's signature first": Followed(
            SOURCES + "test_an_export_is_compared_on_its_example_inputs_where_there_are_only_random_samples"
        ),
        "{} is no sample file, which is one whose name ends in .npz": Followed(
            SAMPLES + "test_another_kind_of_file_is_saved_with_numpy"
        ),
        "{}: at most {} random samples are made: more of them show no more": Followed(
            SAMPLES + "test_noise_is_asked_for_as_told"
        ),
        "{}: {} is not a number of samples": Followed(SAMPLES + "test_noise_is_asked_for_as_told"),
        "{} is a folder of pictures, and nothing says what the model was trained on": Followed(
            PICTURES + "test_a_folder_of_pictures_is_told_what_says_how_they_become_samples"
        ),
        "{} is one picture; samples are many": Followed(
            PICTURES + "test_a_folder_of_pictures_is_told_what_says_how_they_become_samples"
        ),
    },
    "core/samples/pictures/decode.py": {
        "pictures need Pillow, which is not installed": INSTALLS,
    },
    "core/samples/pictures/folder.py": {
        "{} names {} classes, the model has {}": Followed(
            FOLDERS + "test_which_folder_is_which_of_the_models_classes_is_said"
        ),
        "{} has {} class folders, the model {} classes: which is which is not known": Followed(
            FOLDERS + "test_which_folder_is_which_of_the_models_classes_is_said"
        ),
        "{} names classes, and the pictures of {} lie in no class folders": Followed(
            FOLDERS + "test_names_of_classes_need_class_folders"
        ),
        "{} does not name the class folders {}": Followed(FOLDERS + "test_a_file_of_classes_is_mended"),
        "{} names a class twice: {}": Followed(FOLDERS + "test_a_file_of_classes_is_mended"),
        "{} cannot be read as names of classes: {}": Followed(FOLDERS + "test_a_file_of_classes_is_mended"),
        "{} holds no pictures{}": Followed(FOLDERS + "test_a_folder_without_pictures_is_given_as_another"),
        "the folder {} has a name that cannot be printed": Followed(
            FOLDERS + "test_a_folder_whose_name_steers_the_terminal_is_renamed"
        ),
        "the folders of {} are parts of a data set, not classes: {}": Followed(
            FOLDERS + "test_parts_of_a_data_set_are_given_one_by_one"
        ),
        "{} holds {} pictures beside the folders {}: they are of no class": Followed(
            FOLDERS + "test_pictures_beside_class_folders_are_moved"
        ),
    },
    "core/samples/pictures/folders.py": {
        "{} and {} have other classes: {}": Followed(
            PICTURES + "test_folders_that_calibrate_and_judge_have_one_meaning"
        ),
    },
    "core/samples/pictures/settle.py": {
        "--preprocess {} makes {}, the model takes {}": Followed(
            SETTLING + "test_what_does_not_fit_the_model_is_said_otherwise"
        ),
        "pictures are made for a model whose inputs are not known yet": Followed(
            SETTLING + "test_before_the_model_is_known_name_and_size_are_to_be_said"
        ),
        "--preprocess {}: {} has {} numbers, gray pictures have one channel": Followed(
            SETTLING + "test_what_does_not_fit_the_model_is_said_otherwise"
        ),
        "--preprocess {}: the model leaves height and width open": Followed(
            SETTLING + "test_what_does_not_fit_the_model_is_said_otherwise"
        ),
        "{} is no picture of 1 or 3 channels{}": Followed(
            SETTLING + "test_models_that_take_no_picture_take_a_function"
        ),
        "--preprocess {}: the model's input is {}, not {}": Followed(
            SETTLING + "test_what_does_not_fit_the_model_is_said_otherwise"
        ),
        "--preprocess {}: layout nhw has no axis for channels": Followed(
            SETTLING + "test_what_does_not_fit_the_model_is_said_otherwise"
        ),
        "--preprocess {}: a shorter side of {} is less than the model takes, {}x{}": Followed(
            SETTLING + "test_what_does_not_fit_the_model_is_said_otherwise"
        ),
        "a picture is one input, and the model takes {}": Followed(
            SETTLING + "test_models_that_take_no_picture_take_a_function"
        ),
        "--preprocess {}: the model takes whole numbers from 0 to 255, which are not scaled": Followed(
            SETTLING + "test_whole_numbers_leave_no_room_for_a_mean"
        ),
    },
    "core/samples/pictures/store.py": {
        "{} pictures of {} in {} take {} GB, and {} has {} GB left": Followed(
            PICTURES + "test_what_does_not_fit_the_disk_is_refused"
        ),
        "no such file: {}": Followed(PICTURES + "test_a_file_of_labels_that_is_not_there_is_given"),
        "{}: {}": Followed(PICTURES + "test_a_picture_that_is_too_small_to_be_cut_out_of_is_resized"),
        "{} of {} pictures of {} cannot be read: {}": Followed(
            PICTURES + "test_what_cannot_be_read_is_left_out_and_named_or_refused_when_it_is_much"
        ),
        "{}: {} pictures lie in two classes, such as {}": Followed(
            PICTURES + "test_one_picture_in_two_classes_is_taken_out_of_one"
        ),
    },
    "core/samples/pictures/transform.py": {
        "a picture of {}x{} is smaller than crop={}x{}": Followed(
            PICTURES + "test_a_picture_that_is_too_small_to_be_cut_out_of_is_resized"
        ),
    },
    "core/samples/pictures/wishes.py": {
        "--preprocess {}: {}x{} cannot be cut out where the shorter side is {}": Followed(
            SETTLING + "test_what_makes_no_sense_is_said_otherwise"
        ),
        "--preprocess {}: {} is neither a preset nor NAME=VALUE": Followed(
            SETTLING + "test_what_makes_no_sense_is_said_otherwise"
        ),
        "--preprocess {}: two presets are given": Followed(SETTLING + "test_what_makes_no_sense_is_said_otherwise"),
        "--preprocess {}: {} is unknown": Followed(SETTLING + "test_what_makes_no_sense_is_said_otherwise"),
        "--preprocess {}: {} is given twice": Followed(SETTLING + "test_what_makes_no_sense_is_said_otherwise"),
        "--preprocess {}: {}={}: expected {}": Followed(SETTLING + "test_what_makes_no_sense_is_said_otherwise"),
        "--preprocess {}: {} exclude each other": Followed(SETTLING + "test_what_makes_no_sense_is_said_otherwise"),
    },
    "core/samples/python_source.py": {
        "no such file: {}": Followed(SAMPLES + "test_a_file_of_functions_is_given_with_one"),
        "running {} failed: {}: {}": Followed(SAMPLES + "test_a_file_imports_without_arguments"),
        "{}": Followed(SAMPLES + "test_a_file_of_functions_is_given_with_one"),
        "{} defines no function {}": Followed(SAMPLES + "test_a_file_of_functions_is_given_with_one"),
        "{} is a Python file: name the function in it that {}, as {}:FUNCTION": Followed(
            SAMPLES + "test_a_file_of_functions_is_given_with_one"
        ),
    },
    "core/samples/sample_set.py": {
        "{} holds 0 samples": Followed(SAMPLES + "test_arrays_that_are_mended_as_told_are_taken"),
        "{}: labels go from {} to {}, the model has the classes 0 to {}": Followed(
            SAMPLES + "test_arrays_that_are_mended_as_told_are_taken"
        ),
        "{}: labels must be integer class numbers of shape [samples], not {} {}": Followed(
            SAMPLES + "test_arrays_that_are_mended_as_told_are_taken"
        ),
        "{}: the arrays do not match the model's inputs: {}": Followed(
            SAMPLES + "test_arrays_that_are_mended_as_told_are_taken"
        ),
        "{}: the arrays hold different numbers of samples ({})": Followed(
            SAMPLES + "test_arrays_that_are_mended_as_told_are_taken"
        ),
        "{}: {} has the shape {}, the model expects {}": Followed(
            FITTING + "test_following_the_hint_makes_the_samples_fit"
        ),
        "{}: {} has {} rows, the model takes {} at a time": Followed(
            SAMPLES + "test_arrays_that_are_mended_as_told_are_taken"
        ),
        "{}: {} holds NaN or infinity, first in row {}": Followed(
            SAMPLES + "test_arrays_that_are_mended_as_told_are_taken"
        ),
        "{}: {} holds {} in row {}, which is infinite in the model's {}": Followed(
            SAMPLES + "test_arrays_that_are_mended_as_told_are_taken"
        ),
        "{}: {} is {}, the model expects {}": Followed(FITTING + "test_following_the_hint_makes_the_samples_fit"),
    },
    "core/samples/source.py": {
        "--labels is for folders of pictures": Followed(PICTURES + "test_preprocessing_is_for_pictures"),
        "{} is for pictures, and {} holds none": Followed(PICTURES + "test_preprocessing_is_for_pictures"),
    },
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
    "targets/openvino/convert.py": {
        "OpenVINO cannot convert {}: {}": Followed(HERE + "test_an_operator_that_openvino_lacks_runs_in_onnx_runtime"),
    },
    "targets/openvino/candidates.py": {
        "OpenVINO cannot run {} as NNCF quantizes it: {}": VENDOR,
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
    "targets/openvino/weights.py": {
        "NNCF cannot compress {} ({}): {}": VENDOR,
        "{} has no weights of a matrix, convolution or table to compress": Followed(
            WEIGHTS + "test_a_model_without_large_weights_is_taken_as_it_is"
        ),
    },
    "targets/openvino/target.py": {
        "OpenVINO cannot load {}: {}": Followed(LOADING + "test_a_damaged_openvino_file_is_built_again"),
        "{}": Followed(UNIT + "test_a_machine_without_bf16_takes_the_other_openvino_targets"),
    },
    "targets/options.py": {
        "the runtime has no setting {}": Followed(
            "tests/unit/targets/test_options.py::test_settings_of_a_manifest_are_the_targets_own"
        ),
        "setting {} cannot be {}": Followed(
            "tests/unit/targets/test_options.py::test_settings_of_a_manifest_are_the_targets_own"
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
    "targets/quantization/trials.py": {
        "quantizing failed: {}: {}": VENDOR,
        "no way of quantizing gives usable numbers: {}": VENDOR,
    },
    "targets/quantization/statistics.py": {
        "calibration saw nothing but NaN or infinity in {}, made by {}": Followed(
            HERE + "test_calibration_takes_samples_with_numbers"
        ),
    },
    "targets/readiness.py": {
        "package {} is not installed": INSTALLS,
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
    "targets/openvino/planned.py": {
        "NNCF cannot store weights of {} in {}: {}": VENDOR,
    },
    "targets/quantization/planned.py": {
        "nothing of the plan can be executed: all {} layers of it are in float here ({})": Followed(
            PLANS + "test_what_cannot_follow_a_plan_says_so"
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
    "targets/tflite/target.py": {
        "no TFLite runtime is installed": INSTALLS,
        "the TFLite runtime is installed but does not import": INSTALLS,
    },
}
