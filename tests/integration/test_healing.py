"""What lets a changed network heal: batch norms that fit its weights, batches that vary, answers of the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compression_runs import NET, call_here, make_samples, run
from refusing import refused

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from modelwright.compression import compressing  # noqa: E402
from modelwright.compression.batch_norm import settle_batch_norms  # noqa: E402
from modelwright.compression.data import open_data  # noqa: E402
from modelwright.compression.network import Network, make_network  # noqa: E402
from modelwright.core.samples.python_source import split_function  # noqa: E402
from modelwright.exporters.torch.source import TorchSource, load_program  # noqa: E402

AUGMENT = """
import torch

def turn_labels(batch):
    return {**batch, "labels": (batch["labels"] + 1) % 3}

def add_noise(batch):
    return {**batch, "x": batch["x"] + torch.randn(batch["x"].shape)}

def drop_rows(batch):
    return {name: value[:-1] for name, value in batch.items()}

def drop_labels(batch):
    return {"x": batch["x"]}

def soften_labels(batch):
    return {**batch, "labels": batch["labels"].float()}

def return_nothing(batch):
    batch["x"] = batch["x"] * 2

def fail(batch):
    return batch["image"]
"""


NORMED = """
class Normed(nn.Sequential):
    def forward(self, x):
        return super().forward(x)

def normed():
    torch.manual_seed(3)
    return Normed(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), torch.zeros(2, 6)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compressing, "run_in_child", call_here)
    # Beside the folder of the network: in one process the files of a source are those beside it.
    (tmp_path / "augment.py").write_text(AUGMENT)
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    np.savez(folder / "train.npz", **make_samples(256, 1))
    np.savez(folder / "test.npz", **make_samples(128, 2))
    return folder


class Normed(nn.Module):
    """Two norms with statistics that fit nothing; the second is frozen while the module is trained, as in detectors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.norm, self.frozen = nn.BatchNorm1d(4, momentum=0.25), nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        with torch.no_grad():
            for norm in (self.norm, self.frozen):
                norm.running_mean.fill_(7)
                norm.running_var.fill_(9)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Any) -> Any:
        return self.frozen(self.norm(self.linear(self.dropout(x))))


def open_normed(place: Path) -> tuple[Network, Any]:
    torch.manual_seed(0)
    network = make_network(TorchSource(name="net", module=Normed().eval(), args=(torch.zeros(2, 6),), kwargs={}))
    return network, open_data(place / "train.npz", "train.npz", network.examples)


def test_batch_norms_get_mean_and_variance_of_the_training_data(place: Path) -> None:
    network, data = open_normed(place)
    chosen = np.arange(100, 200)  # of these alone
    settle_batch_norms(network, data, chosen)
    module = network.module
    with torch.no_grad():
        values = module.linear(data.take(chosen)["x"])
    torch.testing.assert_close(module.norm.running_mean, values.mean(0))
    torch.testing.assert_close(module.norm.running_var, values.var(0))
    assert module.norm.momentum == 0.25
    assert not any(each.training for each in module.modules())
    # What the module itself keeps as it is while it is trained stays as it is.
    assert (module.frozen.running_mean == 7).all()
    assert (module.frozen.running_var == 9).all()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    settle_batch_norms(network, data, chosen)
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


def test_one_sample_has_no_statistics(place: Path) -> None:
    network, data = open_normed(place)
    settle_batch_norms(network, data, np.arange(1))
    assert (network.module.norm.running_mean == 7).all()


def test_a_network_without_batch_norms_is_not_run(place: Path) -> None:
    network, data = open_normed(place)
    network.module = nn.Linear(1, 1)  # which takes none of these samples
    settle_batch_norms(network, data, np.arange(100))


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_is_saved_has_norms_that_fit_the_weights_that_are_saved(place: Path, epochs: int) -> None:
    with (place / "net.py").open("a") as file:
        file.write(NORMED)
    made = run(place, "prune:magnitude:0.6", function="normed", epochs=epochs)
    state = load_program(made.folder / "model.pt2", None, trust=False).program.state_dict
    assert int((state["0.weight"] == 0).sum()) > 10
    data = open_data(place / "train.npz", "train.npz", {"x": torch.zeros(2, 6)})
    values = nn.functional.linear(data.take(data.split()[0])["x"], state["0.weight"], state["0.bias"])
    torch.testing.assert_close(state["1.running_mean"], values.mean(0))
    torch.testing.assert_close(state["1.running_var"], values.var(0))


def test_batches_are_changed_while_they_train_and_only_then(place: Path) -> None:
    plain = run(place, epochs=20, out="plain").record
    told = run(place, epochs=20, augment=f"{place.parent / 'augment.py'}:turn_labels").record
    assert plain.quality_after.value > 0.8
    # It has learnt to say the next class: nearly all answers are wrong to who judges by the true ones.
    assert told.stages[0].epochs[-1].held.value < 0.15
    assert told.stages[0].parameters["augment"] == "augment.py:turn_labels"
    assert told.quality_before == plain.quality_before


def test_what_changes_batches_draws_the_same_numbers_again(place: Path) -> None:
    augment = f"{place.parent / 'augment.py'}:add_noise"
    first, second, other = (
        run(place, out=str(number), seed=seed, augment=augment).record.files["weights.safetensors"]
        for number, seed in enumerate((0, 0, 1))
    )
    assert first == second != other


def test_the_code_that_changes_batches_decides_the_result(place: Path) -> None:
    augment = f"{place.parent / 'augment.py'}:add_noise"
    run(place, augment=augment)
    assert run(place, augment=augment).reused
    with split_function(augment)[0].open("a") as file:
        file.write("# another\n")
    refused(lambda: run(place, augment=augment), "holds the result of another source")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("drop_rows", r"returned labels torch.int64 \[31\], x torch.float32 \[31, 6\], and labels torch.int64 \[32\]"),
        ("drop_labels", r"returned x torch.float32 \[32, 6\], and labels"),
        ("soften_labels", r"returned labels torch.float32 \[32\]"),
        ("return_nothing", "returned NoneType"),
        ("fail", "failed: KeyError: 'image'"),
    ],
)
def test_what_makes_no_batch_is_refused(place: Path, function: str, words: str) -> None:
    hint = refused(lambda: run(place, augment=f"{place.parent / 'augment.py'}:{function}"), words)
    assert "dict" in hint
    assert not (place / "out").exists()
    # What does as the hint says is taken.
    assert run(place, epochs=1, augment=f"{place.parent / 'augment.py'}:add_noise").record.files


@pytest.mark.parametrize("methods", [("prune:magnitude:0.3",), ("prune:2:4", "prune:magnitude:0.6")])
def test_answers_of_the_source_are_learnt_where_labels_are_wrong(place: Path, methods: tuple[str, ...]) -> None:
    good = run(place, out="good", epochs=20).folder  # a saved program, which teaches just as a module does
    arrays = make_samples(256, 1)
    arrays["labels"] = (arrays["labels"] + 1) % 3
    np.savez(place / "train.npz", **arrays)
    options = {"function": str(good), "epochs": 20, "alpha": 0.0}
    alone = run(place, *methods, out="alone", **options).record
    taught = run(place, *methods, out="taught", distil_from_source=True, **options).record
    assert taught.quality_before.value > 0.8
    assert alone.stages[0].epochs[-1].held.value > 0.7  # of the wrong labels
    assert taught.stages[0].epochs[-1].held.value < 0.3
    assert taught.quality_after.value > taught.quality_before.value - 0.1
    assert taught.stages[0].parameters["teacher"] == "Kullback-Leibler"
    assert "teacher" not in alone.stages[0].parameters
