"""The record of a language model is used only with the files that it describes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file
from modelwright.core.records.language import (
    LANGUAGE_RECORD,
    LanguageModel,
    LanguageSource,
    LanguageVerification,
    LogitsError,
    load_language,
    save_language,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.onnx", "model.onnx.data", "tokenizer.json"):
        (tmp_path / name).write_text(name)
    hashes = {name: hash_file(tmp_path / name) for name in ("model.onnx", "model.onnx.data")}
    cases = [("prefill", 2e-6), ("after 32 steps", 5e-6), ("a padded batch", 1e-6)]
    save_language(
        tmp_path,
        LanguageModel(
            architecture="LlamaForCausalLM",
            kind="llama",
            layers=30,
            hidden_size=576,
            intermediate_size=1536,
            attention_heads=9,
            kv_heads=3,
            head_dim=64,
            vocab_size=49152,
            context_length=8192,
            sliding_window=None,
            tied_embeddings=True,
            bos_token_id=1,
            eos_token_ids=(2,),
            pad_token_id=None,
            num_parameters=134_515_008,
            opset=23,
            source=LanguageSource(kind="folder", path="smollm2", sha256="0" * 64, files={}, weights_dtype="bfloat16"),
            files=hashes,
            tokenizer_files={"tokenizer.json": hash_file(tmp_path / "tokenizer.json")},
            size_bytes=538_000_000,
            verification=LanguageVerification(
                by="transformers",
                cases=tuple(
                    LogitsError(case=case, positions=8, relative_l2_error=error, tolerance=1e-4, max_abs_error=error)
                    for case, error in cases
                ),
                greedy_tokens=32,
                equal_tokens=32,
                near_tie=None,
            ),
            verification_reason=None,
            notes=(),
            versions={},
        ),
    )
    return tmp_path


def test_a_record_is_read_as_it_was_written(folder: Path) -> None:
    model = load_language(folder)
    # The cache of this shape: 30 layers, keys and values, 3 heads of 64 numbers of 4 bytes.
    assert model.cache_bytes_per_token == 46_080
    assert model.verification is not None
    assert model.verification.worst is not None
    assert model.verification.worst.case == "after 32 steps"
    line = "538 MB, 134.5M parameters, 30 layers, context of 8,192 tokens, relative error 5.0e-06 (after 32 steps)"
    assert model.summarize() == f"LlamaForCausalLM: {line}, 32 of 32 greedy tokens equal"
    tiny = replace(model, size_bytes=154_000, num_parameters=38_400)
    assert tiny.summarize().startswith("LlamaForCausalLM: 0.15 MB, 0.038M parameters, 30 layers")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_what_was_changed_or_taken_away_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("other")
    load_language(folder, verify=False)
    with pytest.raises(BadInputError, match=f"{name} was changed after language.json was written"):
        load_language(folder)
    (folder / name).unlink()
    with pytest.raises(BadInputError, match=f"{name} is missing"):
        load_language(folder, verify=False)


def test_a_link_in_the_place_of_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.onnx.data").rename(tmp_path / "elsewhere")
    (folder / "model.onnx.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInputError, match="no plain file"):
        load_language(folder)


def test_an_edited_record_is_refused(folder: Path) -> None:
    path = folder / LANGUAGE_RECORD
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "context_length": 9}))
    with pytest.raises(BadInputError, match="was changed after it was written"):
        load_language(folder)


def test_a_record_without_the_hash_of_its_weights_is_refused(folder: Path) -> None:
    model = load_language(folder)
    from msgspec.structs import replace

    save_language(folder, replace(model, files={"model.onnx": model.files["model.onnx"]}))
    with pytest.raises(BadInputError, match=r"model\.onnx\.data has no hash"):
        load_language(folder)
