"""The networks of the mixed-precision example, their data, and what is committed beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelwright.examples.mixed_precision import data

torch = pytest.importorskip("torch")

from modelwright.examples.mixed_precision import model  # noqa: E402
from modelwright.examples.mixed_precision.augment import MAX_SHIFT, augment  # noqa: E402


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A folder of the form of CIFAR-10: an image of one color, black ones, and labels of bytes."""
    images = np.zeros((5, 32, 32, 3), np.uint8)
    images[0] = (255, 0, 51)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", images=images, labels=np.arange(5, dtype=np.uint8))
    return tmp_path


def test_pixels_are_standardized_by_channel(cifar: Path) -> None:
    images, labels = data.read(cifar, "train")
    assert (images.shape, images.dtype, labels.dtype) == ((5, 3, 32, 32), np.float32, np.int64)
    expected = [(1 - 0.491) / 0.247, (0 - 0.482) / 0.243, (0.2 - 0.447) / 0.262]
    np.testing.assert_allclose(images[0, :, 0, 0], expected, rtol=1e-5)


def test_samples_are_the_same_as_files_and_as_a_function(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.write(cifar, cifar / "out", count=3)
    monkeypatch.setenv("CIFAR10", str(cifar))
    with np.load(cifar / "out" / "test.npz") as stored:
        assert sorted(stored) == ["image", "labels"]
        for row, sample in zip(range(3), data.test_samples(), strict=False):
            np.testing.assert_array_equal(stored["image"][row], sample["image"])
            assert stored["labels"][row] == sample["labels"] == row


def test_a_folder_that_nobody_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIFAR10", raising=False)
    with pytest.raises(ValueError, match="CIFAR10 is not set: it names the folder"):
        next(iter(data.test_samples()))


def test_images_are_shifted_whole_and_half_of_them_mirrored() -> None:
    image = torch.arange(1.0, 3 * 32 * 32 + 1).reshape(1, 3, 32, 32)
    inner = image[0, :, 8, 8:24]  # stays inside whatever the shift
    torch.manual_seed(0)
    places, mirrored = set(), 0
    for made in augment(image.repeat(400, 1, 1, 1)):
        rows = [(row, column) for row in range(4, 13) for column in range(4, 13)]
        plain = [at for at in rows if torch.equal(made[:, at[0], at[1] : at[1] + 16], inner)]
        turned = [at for at in rows if torch.equal(made.flip(2)[:, at[0], at[1] : at[1] + 16], inner)]
        assert len(plain) + len(turned) == 1
        mirrored += len(turned)
        places |= {*plain, *turned}
    assert len(places) > 0.9 * (2 * MAX_SHIFT + 1) ** 2
    assert 150 < mirrored < 250


@pytest.mark.parametrize(("name", "parameters"), [("resnet20", 272_378), ("vit", 1_205_770)])
def test_a_trained_network_has_its_size_and_small_weights(name: str, parameters: int) -> None:
    module, (image,) = getattr(model, name)()
    assert sum(value.numel() for value in module.parameters()) == parameters < 3_000_000
    assert (model.FOLDER / f"{name}.safetensors").stat().st_size < 5e6
    with torch.no_grad():
        logits = module(image)
    assert logits.shape == (2, 10)
    assert not module.training
    assert logits.abs().max() > 1, "random weights say nothing as surely"
