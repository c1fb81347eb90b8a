from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelwright.core.errors import BuildFailedError
from modelwright.targets.building import prove as prove_module
from modelwright.targets.building.proof_files import hash_built, hash_proved, require_unchanged


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "new"
    (folder / "data").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "data" / "artifact.json").write_bytes(b"more weights")
    return folder


@pytest.mark.parametrize("name", ["reference.npz", "artifact.json", "Reference.NPZ"])
def test_a_build_cannot_leave_what_would_be_overwritten_after_the_proof(staging: Path, name: str) -> None:
    (staging / name).write_bytes(b"weights")
    with pytest.raises(BuildFailedError, match=f"left {name}, a name that the artifact needs itself"):
        hash_built("a-fp32", staging)
    (staging / name).rename(staging / "other.npz")
    assert "other.npz" in hash_built("a-fp32", staging)


def test_a_build_leaves_files_only(staging: Path) -> None:
    (staging / "link").symlink_to(staging / "model.bin")
    with pytest.raises(BuildFailedError, match=r"left more than files.*link is a link"):
        hash_built("a-fp32", staging)


def test_what_was_built_is_what_the_manifest_gets(staging: Path) -> None:
    files = hash_built("a-fp32", staging)
    assert set(files) == {"model.bin", "data/artifact.json"}
    (staging / "reference.npz").write_bytes(b"outputs")
    assert hash_proved("a-fp32", staging, files).items() >= files.items()
    (staging / "data" / "artifact.json").write_bytes(b"no weights")
    for check in (hash_proved, require_unchanged):
        with pytest.raises(BuildFailedError, match=r"data/artifact\.json"):
            check("a-fp32", staging, files)


@pytest.mark.parametrize("name", ["late.bin", "data/late.bin"])
def test_a_file_that_comes_with_the_proof_is_no_part_of_it(staging: Path, name: str) -> None:
    files = hash_built("a-fp32", staging)
    (staging / name).write_bytes(b"")
    with pytest.raises(BuildFailedError, match=f"changed while it was proved: {name}"):
        hash_proved("a-fp32", staging, files)
    (staging / name).unlink()  # nothing else writes any more, and it is built again
    assert hash_proved("a-fp32", staging, hash_built("a-fp32", staging)) == files


class Target:
    """Something writes into its file between the first look at it and its being loaded."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    @contextlib.contextmanager
    def load(self, directory: Path, model_file: str, *_: object) -> Iterator[Any]:
        (directory / model_file).write_bytes(self.content)
        yield SimpleNamespace(run=None)


def test_a_file_that_is_swapped_while_it_is_loaded_is_not_proved(
    staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = hash_built("a-fp32", staging)
    monkeypatch.setattr(prove_module, "_compare", lambda *_: {})

    def prove(content: bytes) -> object:
        monkeypatch.setattr(prove_module, "get_target", lambda _name: Target(content))
        return prove_module.prove_in_child(
            target="a-fp32", directory=str(staging), model_file="model.bin", recipe={}, device="cpu", files=files,
            options={}, signature={"inputs": [], "outputs": []}, evaluation={}, reference="", roles={}, chain=None,
            chains="", answers=None, threads=1, kept=None,
        )  # fmt: skip

    with pytest.raises(BuildFailedError, match=r"not any more what was built: model\.bin was changed") as caught:
        prove(b"Weights")
    assert str(caught.value.hint).endswith("and build again")
    (staging / "model.bin").write_bytes(b"weights")
    assert prove(b"weights")
