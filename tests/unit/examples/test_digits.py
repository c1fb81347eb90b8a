"""The embedded digits example: what is committed beside it, and that the weights classify."""

import json
import math
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(str(resources.files("modelwright.examples.digits")))
WEIGHTS_PATH = FOLDER / "weights.safetensors"
SAMPLES_PATH = FOLDER / "samples.npz"
MIB = 1024**2


def read_tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Read names and shapes from a safetensors header: a little-endian u64 length, then JSON."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def test_weights_are_small_enough_to_commit() -> None:
    assert WEIGHTS_PATH.stat().st_size < 5 * MIB


def test_parameter_count() -> None:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    count = sum(
        math.prod(shape) for name, shape in read_tensor_shapes(WEIGHTS_PATH).items() if not name.endswith(statistics)
    )
    assert 300_000 <= count <= 1_000_000


def test_samples_have_the_documented_layout() -> None:
    assert SAMPLES_PATH.stat().st_size < 3 * MIB
    with np.load(SAMPLES_PATH) as samples:
        assert sorted(samples.files) == ["image", "labels"]
        image, labels = samples["image"], samples["labels"]
    assert image.shape == (600, 1, 32, 32)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert labels.shape == (600,)
    assert labels.dtype == np.int64
    assert sorted(set(labels.tolist())) == list(range(10))


def test_model_classifies_the_samples() -> None:
    torch = pytest.importorskip("torch", reason="the FP32 model is a torch module")
    pytest.importorskip("safetensors", reason="the weights are a safetensors file")
    from modelwright.examples.digits.model import create_model

    model, (example,) = create_model()
    assert not model.training
    assert tuple(example.shape) == (2, 1, 32, 32)
    assert model.output_names == ("logits",)
    with np.load(SAMPLES_PATH) as samples, torch.inference_mode():
        logits = model(torch.from_numpy(samples["image"])).numpy()
        accuracy = float((logits.argmax(axis=1) == samples["labels"]).mean())
    assert logits.shape == (600, 10)
    assert accuracy >= 0.98
