"""Mixed precision on the shapes of torchvision's ResNet-18 and timm's DeiT-Tiny, with a folder of pictures.

Of DeiT-Tiny's 12 blocks, which are all alike, 2: layers by the dozen take minutes and find nothing else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from modelwright import examples
from modelwright.cli.mix import mix
from modelwright.core.records.plan import read_plan

torch = pytest.importorskip("torch")
image = pytest.importorskip("PIL.Image")

SHAPES = Path(examples.__file__).parent / "mixed_precision" / "shapes.py"
SHALLOW = """
import torch
from modelwright.examples.mixed_precision.model import VisionTransformer

def create():
    torch.manual_seed(0)
    return VisionTransformer(224, 16, 192, 2, 3, 1000).eval(), (torch.randn(2, 3, 224, 224),)
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight pictures of noise of several sizes, in two folders that are classes."""
    generator = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "pictures" / ("cats", "dogs")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (240 + number, 260, 3), np.uint8)
        image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_the_shapes_are_those_of_the_packages() -> None:
    from modelwright.examples.mixed_precision.shapes import deit_tiny, resnet18

    count = {make.__name__: sum(value.numel() for value in make()[0].parameters()) for make in (resnet18, deit_tiny)}
    # torchvision's with 1000 classes has 11,689,512; timm's has 5,717,416, with a place of the class token of its own.
    assert count == {"resnet18": 11_689_512 - 513 * 900, "deit_tiny": 5_717_416 - 192}
    assert torch.equal(resnet18()[0].head.weight, resnet18()[0].head.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "preprocess", "layers"),
    [(f"{SHAPES}:resnet18", "imagenet,size=32", 21), ("shallow.py:create", "imagenet", 2 * 6 + 2)],
    ids=["resnet18", "deit_tiny of two blocks"],
)
def test_a_network_of_this_shape_is_mixed_on_the_users_own_pictures(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, preprocess: str, layers: int
) -> None:
    (tmp_path / "shallow.py").write_text(SHALLOW)
    monkeypatch.chdir(tmp_path)
    words = [
        source, "-s", str(pictures), "--labels", "none", "--preprocess", preprocess,
        "--bits", "8,4", "-o", str(tmp_path / "mixed"),
    ]  # fmt: skip
    done = CliRunner().invoke(mix, words)
    assert done.exit_code == 0, done.output
    plan = read_plan(tmp_path / "mixed" / "plan.json")
    assert len(plan.layers) == layers
    assert (tmp_path / "mixed" / "pareto.png").stat().st_size > 1000
