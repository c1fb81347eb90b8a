"""Every target for language models generates as PyTorch does, from prompts of equal and of different length."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from language_models import make_language_folder
from tokenizers import Tokenizer

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.records.language import LanguageModel
from modelwright.exporters.language import export_language
from modelwright.harness.language.generating import generate
from modelwright.harness.language.weights import count_parameters, measure_kinds_in_child
from modelwright.targets.language.contract import Generator, LanguageBuildRequest, Logits, Tokens
from modelwright.targets.language.table import get_target, target_names
from modelwright.targets.options import RunSettings

pytestmark = pytest.mark.slow
ERRORS = {"fp32": 1e-4, "bf16": 0.12, "int8-weights": 0.25, "int8-dynamic": 0.4, "int4-weights": 0.9}
"""Precision -> relative L2 error of logits at most. Random weights amplify rounding; a fault of masks gives above 1."""
BITS = {
    **dict.fromkeys(("ort-fp32", "openvino-fp32", "openvino-bf16", "tflite-fp32", "torch-fp32"), (32, 32)),
    "torch-bf16": (16, 16),
    **dict.fromkeys(("ort-int8-weights", "openvino-int8-weights", "torch-int8-dynamic"), (8, 10)),
    "tflite-int8-dynamic": (8, 15),  # a scale and a zero point for each column, in both graphs of the file
    **dict.fromkeys(("ort-int4-weights", "openvino-int4-weights"), (4, 10)),
    "tflite-int4-weights": (4, 15),  # likewise
}
"""Target -> bits of a weight in the files. OpenVINO's BF16 is how it runs the FP32 model."""
TABLES = {**BITS, "ort-int4-weights": (12, 15)}
"""The same of tables that the head shares: with 4 bits, it has its own beside the 8 that are looked up."""
PROMPT = np.arange(3, 27, dtype=np.int64)[None] * 7 % 250
SHORTER = 9


@dataclass(frozen=True, kw_only=True)
class Exported:
    source: Path
    folder: Path
    record: LanguageModel
    torch_model: Any

    def score(self, tokens: Tokens) -> Logits:
        import torch

        with torch.inference_mode():
            logits: Logits = self.torch_model(torch.from_numpy(tokens), use_cache=False).logits.numpy()
        return logits


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    source = make_language_folder(tmp_path_factory.mktemp("language") / "tiny", "llama")
    folder = source.parent / "exported"
    record = export_language(source, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(source)
    return Exported(source=source, folder=folder, record=record, torch_model=model)


def build(name: str, exported: Exported, here: Path, limit: float | None = None) -> Any:
    for folder in ("artifact", "scratch", "shared"):
        (here / folder).mkdir(parents=True)
    rows = np.random.default_rng(0).integers(0, 250, (6, 48))
    return get_target(name).build(
        LanguageBuildRequest(
            model=exported.folder,
            record=exported.record,
            source=exported.source,
            directory=here / "artifact",
            calibration=rows[:3],
            tuning=rows[3:],
            scratch=here / "scratch",
            shared=here / "shared",
            progress=lambda line: None,
            threads=1,
            max_perplexity_increase=limit,
        )
    )


@pytest.fixture(scope="module", params=target_names())
def artifact(request: pytest.FixtureRequest, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Any:
    here = tmp_path_factory.mktemp(request.param)
    result = build(request.param, exported, here)
    return get_target(request.param), here / "artifact", result


@pytest.fixture
def generator(artifact: Any, exported: Exported) -> Iterator[Generator]:
    target, directory, result = artifact
    with target.load(directory, result.model_file, result.recipe, exported.record, RunSettings(threads=1)) as generator:
        yield generator


def compare(found: Logits, expected: Logits) -> float:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_logits_are_those_of_pytorch_at_every_step(artifact: Any, generator: Generator, exported: Exported) -> None:
    limit = ERRORS[artifact[0].record.precision]
    expected = exported.score(PROMPT)
    assert compare(np.array(generator.score(PROMPT)), expected) < limit
    assert compare(np.array(generator.prefill(PROMPT[:, :SHORTER])), expected[:, SHORTER - 1]) < limit
    seen = [compare(np.array(generator.step(PROMPT[:, at])), expected[:, at]) for at in range(SHORTER, PROMPT.size)]
    assert np.mean(seen) < limit
    # A second prompt forgets the first one.
    assert compare(np.array(generator.prefill(PROMPT[:, :SHORTER])), expected[:, SHORTER - 1]) < limit


def test_rows_of_different_length_are_padded_on_the_left(
    artifact: Any, generator: Generator, exported: Exported
) -> None:
    limit = ERRORS[artifact[0].record.precision]
    length = PROMPT.size - 1
    short = PROMPT[:, length - SHORTER : length]
    padded = np.concatenate([np.full((1, length - SHORTER), 258), short], axis=1)
    mask = np.ones((2, length), np.int64)
    mask[1, : length - SHORTER] = 0
    long = PROMPT[:, :length]
    expected = np.concatenate([exported.score(long)[:, -1], exported.score(short)[:, -1]])
    assert compare(np.array(generator.prefill(np.concatenate([long, padded]), mask)), expected) < limit
    after = np.concatenate([exported.score(np.append(one, PROMPT[:, -1:], 1))[:, -1] for one in (long, short)])
    assert compare(np.array(generator.step(np.repeat(PROMPT[0, -1:], 2))), after) < limit


def test_the_cache_grows_by_the_token(artifact: Any, generator: Generator, exported: Exported) -> None:
    generator.prefill(PROMPT[:, :SHORTER])
    before = generator.cache_bytes()
    generator.step(PROMPT[:, SHORTER])
    after = generator.cache_bytes()
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert 0 < before <= after <= before * 4
        assert after <= 2 * exported.record.cache_bytes_per_token * max(exported.record.context_length, SHORTER + 1)


def test_every_weight_is_found_in_the_files_under_its_kind(artifact: Any, exported: Exported) -> None:
    target, directory, result = artifact
    bits = BITS[target.record.name]
    sizes = measure_kinds_in_child(target.record.name, str(directory), result.model_file, lambda _text: None)
    if exported.record.tied_embeddings:
        sizes["embedding"] = sizes.get("embedding", 0) + sizes.pop("head", 0)
    counted = {kind: count for kind, count in count_parameters(exported.record).items() if count}
    assert set(sizes) - {"graph and tables"} == set(counted)
    found = {kind: 8 * sizes[kind] / count for kind, count in counted.items()}
    tables = found.pop("embedding"), found.pop("norms and biases")
    assert tables[1] == (16 if target.record.name == "torch-bf16" else 32)
    low, high = TABLES[target.record.name]
    assert low <= tables[0] <= high or target.record.name == "torch-int8-dynamic"  # whose tables stay float
    for kind, each in found.items():
        # Scales of blocks or rows are counted: rows of 32 numbers, as here, make them dear.
        assert bits[0] <= each <= bits[1], (kind, each)


def answer(generator: Generator, exported: Exported, prompt: list[int]) -> list[int]:
    """Returns 20 tokens after a prompt, or as many as come before one that ends the text."""
    tokens = generate(generator, [prompt], 20).tokens[0].tolist()
    ends = [index for index, token in enumerate(tokens) if token in exported.record.eos_token_ids]
    return tokens[: ends[0]] if ends else tokens


def test_the_program_in_python_writes_what_the_generator_writes(
    artifact: Any, generator: Generator, exported: Exported
) -> None:
    target, directory, result = artifact
    tokenizer = Tokenizer.from_file(str(exported.folder / "tokenizer.json"))
    prompt = "Once upon a time there was"
    text = target.write_snippet("python", result.model_file, result.recipe, exported.record, RunSettings(threads=1))
    for name in exported.record.tokenizer_files:
        if not (directory / name).exists():
            shutil.copyfile(exported.folder / name, directory / name)
    found = subprocess.run(
        [sys.executable, "-c", text, prompt], cwd=directory, capture_output=True, check=True, text=True, timeout=240
    )
    expected = answer(generator, exported, tokenizer.encode(prompt).ids)
    assert len(expected) > 2
    assert found.stdout == tokenizer.decode(expected) + "\n"


def test_the_program_in_cpp_writes_what_the_generator_writes(
    artifact: Any, generator: Generator, exported: Exported, compile_cpp: Callable[[str], Path]
) -> None:
    """One of OpenVINO's, whose package has headers; the others' programs differ in their settings alone."""
    target, directory, result = artifact
    if target.record.name != "openvino-int8-weights" or shutil.which("g++") is None:
        pytest.skip("needs g++ and a runtime whose package has its headers; one of its targets is tried")
    text = target.write_snippet("cpp", result.model_file, result.recipe, exported.record, RunSettings(threads=1))
    command = [str(compile_cpp(text)), *map(str, PROMPT[0])]
    found = subprocess.run(command, cwd=directory, capture_output=True, check=True, text=True, timeout=120)
    assert [int(token) for token in found.stdout.split()] == answer(generator, exported, PROMPT[0].tolist())


def test_what_runs_is_read_back(artifact: Any, generator: Generator) -> None:
    generator.prefill(PROMPT)
    described = generator.describe_execution()
    assert described["threads"] == 1
    if artifact[0].record.is_float and "precision" in described:  # ONNX Runtime tells operators, whose names say it
        assert described["precision"] == artifact[0].record.precision
    if artifact[0].record.runtime == "openvino":
        assert described["fused_attention"] == "3 of 3"


@pytest.mark.parametrize("name", ["openvino-fp32", "torch-fp32", "torch-int8-dynamic"])
def test_a_damaged_artifact_is_built_again(name: str, exported: Exported, tmp_path: Path) -> None:
    result = build(name, exported, tmp_path / "first")
    path = tmp_path / "first" / "artifact" / result.model_file
    path.write_bytes(path.read_bytes()[:-100])
    settings = RunSettings(threads=1)
    loading = (result.model_file, result.recipe, exported.record, settings)
    with (
        pytest.raises(BadInputError, match="cannot load") as caught,
        get_target(name).load(path.parent, *loading),
    ):
        pass
    assert "build the artifact again" in (caught.value.hint or "")
    again = build(name, exported, tmp_path / "second")
    with get_target(name).load(tmp_path / "second" / "artifact", *loading) as generator:
        assert generator.prefill(PROMPT).shape == (1, exported.record.vocab_size)
    assert again.model_file == result.model_file


def test_a_limit_that_no_packing_keeps_is_refused_and_more_bits_keep_a_possible_one(
    exported: Exported, tmp_path: Path
) -> None:
    with pytest.raises(BuildFailedError, match="no way of packing weights in 4 bits") as caught:
        build("openvino-int4-weights", exported, tmp_path / "four", limit=-0.9)
    assert "take a target of more bits" in (caught.value.hint or "")
    recipe = build("openvino-int8-weights", exported, tmp_path / "eight", limit=0.5).recipe
    assert recipe["search"][-1]["candidate"] == recipe["chosen"]
    assert recipe["search"][-1]["perplexity_increase"] <= 0.5


def test_four_bits_are_chosen_the_same_way_twice(exported: Exported, tmp_path: Path) -> None:
    first, second = (build("openvino-int4-weights", exported, tmp_path / name) for name in ("first", "second"))
    assert first.recipe == second.recipe
    weights = [tmp_path / name / "artifact" / "openvino_model.bin" for name in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_matrices_that_four_bits_do_not_fit_are_told(tmp_path: Path) -> None:
    source = make_language_folder(tmp_path / "odd", "llama", intermediate_size=75)
    record = export_language(source, tmp_path / "exported")
    model = Exported(source=source, folder=tmp_path / "exported", record=record, torch_model=None)
    result = build("openvino-int4-weights", model, tmp_path / "four")
    (note,) = [note for note in result.notes if "not 4" in note]
    assert note.startswith("3 of 21 matrices besides the head have 8 bits, not 4")
    assert "model.layers.0.mlp.down_proj (75)" in note
    stored = get_target("openvino-int4-weights").list_stored(tmp_path / "four" / "artifact", result.model_file)
    largest = {}
    for tensor in stored:
        layer = tensor.name.removesuffix(".values").split("/")[0]
        largest[layer] = max(largest.get(layer, 0), tensor.size_bytes)
    assert largest["model.layers.0.mlp.down_proj"] == 75 * 32
    assert largest["model.layers.0.mlp.up_proj"] == 75 * 32 // 2
