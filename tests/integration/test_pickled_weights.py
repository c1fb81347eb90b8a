"""Pickled weights: refused unless they are trusted, then read as weights alone, and never run."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusing import refused

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from language_models import make_language_folder
from text_models import make_text_folder

from modelwright.core.files import hash_file
from modelwright.exporters.language.exporting import needs_folder
from modelwright.exporters.language.pickled import PICKLED_FILE, PICKLED_INDEX, make_folder, open_pickled
from modelwright.exporters.language.safetensors_files import open_weights
from modelwright.exporters.language.worker import hash_source, write_model
from modelwright.exporters.trace import Trace
from modelwright.exporters.transformers.loading import load_folder

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers'


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_folder(tmp_path_factory.mktemp("pickled") / "llama", dtype="bfloat16")


def _read_state(folder: Path) -> dict[str, Any]:
    return {name: torch.from_numpy(tensor.read()).to(torch.bfloat16) for name, tensor in open_weights(folder).items()}


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """The same model with its weights in two pickled files."""
    folder = Path(shutil.copytree(good, tmp_path / "m"))
    (folder / "model.safetensors").unlink()
    state = _read_state(good)
    names = sorted(state)
    parts = {"pytorch_model-00001-of-00002.bin": names[:5], "pytorch_model-00002-of-00002.bin": names[5:]}
    for file, held in parts.items():
        torch.save({name: state[name] for name in held}, folder / file)
    places = {name: file for file, held in parts.items() for name in held}
    (folder / PICKLED_INDEX).write_text(json.dumps({"weight_map": places}))
    return folder


def _make(folder: Path) -> Path:
    made = folder.parent / "made"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    make_folder(str(folder), str(made), lambda _text: None)
    return made


def _export(folder: Path, out: Path) -> str:
    """Returns the hash of the weights of an export."""
    out.mkdir()
    write_model(str(folder), str(out), lambda _text: None)
    return hash_file(out / "model.onnx.data")


def test_pickled_weights_that_are_trusted_make_the_same_export(good: Path, folder: Path, tmp_path: Path) -> None:
    assert "--trust" in refused(lambda: hash_source(str(folder)), "runs code when it is read")
    assert needs_folder(folder)
    assert len([name for name in hash_source(str(folder), trust=True)["files"] if name.endswith(".bin")]) == 2
    assert _export(_make(folder), tmp_path / "a") == _export(good, tmp_path / "b")


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_pickle_that_would_run_code_is_refused_by_those_who_trust_it_too(
    folder: Path, tmp_path: Path, *, is_archive: bool
) -> None:
    file = folder / "pytorch_model-00001-of-00002.bin"
    kept = file.read_bytes()
    evil = {"w": Evil(tmp_path / "it ran")}
    if is_archive:
        torch.save(evil, file)
    else:
        file.write_bytes(pickle.dumps(evil))
    assert "take one with safetensors" in refused(lambda: _make(folder), "holds something else than weights")
    assert not (tmp_path / "it ran").exists()
    file.write_bytes(kept)
    assert open_weights(_make(folder))


def test_a_model_of_texts_is_read_alike(tmp_path: Path) -> None:
    folder = make_text_folder(tmp_path / "bert")
    before = load_folder(folder, None, Trace(folder), trust=False)
    state = {name: torch.from_numpy(tensor.read()) for name, tensor in open_weights(folder).items()}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / PICKLED_FILE)
    assert "--trust" in refused(lambda: load_folder(folder, None, Trace(folder), trust=False), "runs code when it is")
    after = load_folder(folder, None, Trace(folder), trust=True)
    assert PICKLED_FILE in after.files
    with torch.inference_mode():
        np.testing.assert_array_equal(after.module(**after.kwargs), before.module(**before.kwargs))
    torch.save({**state, "w": Evil(tmp_path / "it ran")}, folder / PICKLED_FILE)
    refused(lambda: load_folder(folder, None, Trace(folder), trust=True), "holds something else than weights")
    assert not (tmp_path / "it ran").exists()


def test_damaged_files_are_downloaded_again(folder: Path) -> None:
    file = folder / "pytorch_model-00002-of-00002.bin"
    kept = file.read_bytes()
    torch.save([torch.zeros(2)], file)
    assert "download" in refused(lambda: open_pickled(file), "holds no weights by name")
    torch.save({"w": torch.zeros(2, dtype=torch.complex64)}, file)
    assert "download" in refused(lambda: _make(folder), "of the type torch.complex64 are not read")
    file.write_bytes(kept[: len(kept) // 2])
    assert "download" in refused(lambda: _make(folder), "or a part of them")
    file.unlink()
    assert "download" in refused(lambda: _make(folder), "names pytorch_model-00002-of-00002.bin, which is not in the")
    file.write_bytes(kept)
    assert open_weights(_make(folder))
