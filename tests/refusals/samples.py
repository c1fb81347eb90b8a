"""Refusals of samples."""

from __future__ import annotations

from refusals.entries import INSTALLS, Followed, Refusals

HERE = "tests/integration/test_refusals.py::"
SAMPLES = "tests/unit/core/samples/test_refusals.py::"
FITTING = "tests/unit/core/samples/test_fitting.py::"
DATASETS = "tests/unit/core/samples/test_datasets.py::"
LOOSE = "tests/unit/core/samples/test_loose_arrays.py::"
FOLDERS = "tests/unit/core/samples/pictures/test_folder.py::"
SETTLING = "tests/unit/core/samples/pictures/test_settle.py::"
PICTURES = "tests/unit/core/samples/pictures/test_store.py::"
SOURCES = "tests/integration/test_source_refusals.py::"
TEXTS = "tests/unit/core/samples/texts/test_labelled.py::"
TOKENIZERS = "tests/integration/test_text_model_refusals.py::"

TABLE: Refusals = {
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
        "{} is read as texts, and the source does not say how they become its inputs": Followed(
            TEXTS + "test_texts_need_a_source_that_reads_them_or_are_given_as_arrays"
        ),
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
    "core/samples/texts/labels.py": {
        "{}: the label {} is none of the model's": Followed(TEXTS + "test_an_entry_is_mended_as_told"),
        "{}: the label {} is no number, which is what this model answers with": Followed(
            TEXTS + "test_a_label_that_is_no_number_is_one_or_none"
        ),
        "{}: the labels {} may be the numbers of both classes, or 0 and 1 for each": Followed(
            TEXTS + "test_several_classes_hold_by_name_number_or_as_in_training"
        ),
        "{}: the labels {} name a class twice": Followed(TEXTS + "test_a_class_that_holds_is_named_once"),
        "{}: {}: which of them the model answers with is not known": Followed(
            TEXTS + "test_words_and_their_tags_are_mended_as_told"
        ),
        "{}: {}: expected {} tags, one a token, found {}": Followed(
            TEXTS + "test_words_and_their_tags_are_mended_as_told"
        ),
    },
    "core/samples/texts/labelled.py": {
        "{}: tokens: expected a list of words, found {}": Followed(
            TEXTS + "test_words_and_their_tags_are_mended_as_told"
        ),
        "{}: {}: which of them the model reads is not known": Followed(
            TEXTS + "test_which_of_several_columns_is_the_text_is_not_guessed"
        ),
        "{} holds no text": Followed(TEXTS + "test_a_file_is_written_as_told"),
        "{} has no {}, and others have one": Followed(TEXTS + "test_all_texts_have_labels_or_none_has"),
        "{}: holds no text; what it holds is called: {}": Followed(TEXTS + "test_an_entry_is_mended_as_told"),
    },
    "core/samples/texts/rows.py": {
        "no such file: {} (texts)": Followed(
            TEXTS + "test_a_file_is_there_and_of_a_kind_that_is_read_and_not_too_large"
        ),
        "{} cannot be read: {}": Followed(TEXTS + "test_a_file_is_there_and_of_a_kind_that_is_read_and_not_too_large"),
        "{} has {} MB; files of texts are read up to 64 MB": Followed(
            TEXTS + "test_a_file_is_there_and_of_a_kind_that_is_read_and_not_too_large"
        ),
        "{} is no file of texts, which is {}": Followed(
            TEXTS + "test_a_file_is_there_and_of_a_kind_that_is_read_and_not_too_large"
        ),
        "{} is not UTF-8 text (byte {})": Followed(TEXTS + "test_a_file_is_written_as_told"),
        "{} is not a .csv: {}": Followed(TEXTS + "test_a_file_is_written_as_told"),
        "{}: not JSON: {}": Followed(TEXTS + "test_a_file_is_written_as_told"),
        "{}: holds half of a character, {}": Followed(TEXTS + "test_an_entry_is_mended_as_told"),
        "{}: expected an object, found a {}": Followed(TEXTS + "test_an_entry_is_mended_as_told"),
    },
    "core/samples/texts/store.py": {
        "--max-length {}: the artifact's tokenizer makes rows of {} tokens": Followed(
            TOKENIZERS + "test_rows_are_no_longer_than_the_model_takes"
        ),
        "{}: it becomes the token {}, and the model knows {}: the tokenizer is another model's": Followed(
            TOKENIZERS + "test_a_tokenizer_of_another_model_is_replaced"
        ),
    },
    "core/samples/texts/tokenizer.py": {
        "--max-length {}: the model takes {} tokens at most": Followed(
            TOKENIZERS + "test_rows_are_no_longer_than_the_model_takes"
        ),
        "Python package {} is not installed, which texts need": INSTALLS,
        "the tokenizer of {} has no token that fills rows up": Followed(
            TOKENIZERS + "test_a_tokenizer_has_a_token_for_padding"
        ),
        "{} cannot be read as a tokenizer": Followed(
            TOKENIZERS + "test_an_artifact_without_its_tokenizer_is_built_again"
        ),
        "{} has no tokenizer that can be used": Followed(TOKENIZERS + "test_a_folder_needs_a_tokenizer"),
    },
    "core/samples/source.py": {
        "--max-length is for texts, and {} is no .jsonl, .csv or .txt": Followed(TEXTS + "test_a_length_is_for_texts"),
        "--labels is for folders of pictures": Followed(PICTURES + "test_preprocessing_is_for_pictures"),
        "{} is for pictures, and {} holds none": Followed(PICTURES + "test_preprocessing_is_for_pictures"),
    },
}
