"""Refusals of compression."""

from __future__ import annotations

from refusals.entries import INSTALLS, VENDOR, Followed, Refusals

COMPRESSION = "tests/integration/test_compression_refusals.py::"
COMPRESS = "tests/integration/test_compress.py::"
HEALING = "tests/integration/test_healing.py::"
DISTILLATION = "tests/integration/test_distillation.py::"
METHODS = "tests/unit/compression/test_methods.py::"

TABLE: Refusals = {
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
        "{} is a folder of transformers, and what trains takes a factory": Followed(
            "tests/integration/test_text_model_refusals.py::test_what_trains_takes_a_factory"
        ),
        "{} is no file here, and what trains takes a factory in the place of a model of a hub": Followed(
            "tests/integration/test_text_model_refusals.py::test_what_trains_takes_a_factory"
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
        "{} cannot be pruned by channels: {}: {}": Followed(
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
        "{} cannot be copied, to learn from as it was: {}: {}": Followed(
            COMPRESSION + "test_what_is_compressed_as_the_hint_says_is_taken"
        ),
        "{} holds the result of another source, or of other methods, data, settings or versions of torch": Followed(
            COMPRESS + "test_another_result_is_replaced_only_when_told"
        ),
    },
}
