"""What compress refuses, with one clear error that leaves nothing behind, and that doing as it says helps."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compression_runs import NET, Stopper, call_here, make_samples, run
from refusing import refused

torch = pytest.importorskip("torch")

from modelwright.compression import compressing  # noqa: E402
from modelwright.compression.network import Network, count_macs  # noqa: E402
from modelwright.core.errors import LimitNotMetError  # noqa: E402

MORE = """
class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach() * 1.0

class OnlyInference(Net):
    def forward(self, x):
        if self.training:
            raise ValueError("no training here")
        return super().forward(x)

class Branching(Net):
    def forward(self, x):
        return super().forward(x * 2 if x.sum() > 0 else x)

class Bare(nn.Module):
    def forward(self, x):
        return x[:, :3] * 1.0

class Fixed(Net):
    def forward(self, x):
        return self.last(torch.relu(self.hidden(x)).view(-1, 16))

class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(6, 3)

    def forward(self, x, h):
        return self.cell(x, h)

class Listed(Net):
    def forward(self, xs):
        return super().forward(xs[0])

def detached(): return Detached(), torch.zeros(2, 6)
def only_inference(): return OnlyInference(), torch.zeros(2, 6)
def branching(): return Branching(), torch.zeros(2, 6)
def bare(): return Bare(), torch.zeros(2, 6)
def fixed(): return Fixed(), torch.zeros(2, 6)
def listed(): return Listed(), ([torch.zeros(2, 6)],)
def stateful(): return Stateful(), (torch.zeros(2, 6), torch.zeros(1, 3)[0])
class Lazy(Net):
    def __init__(self):
        super().__init__()
        self.hidden = nn.LazyLinear(16)

class Normed(Net):
    def __init__(self):
        super().__init__()
        self.middle = nn.BatchNorm1d(16)

def wide():
    net = Net()
    net.hidden, net.middle, net.last = nn.Linear(6, 64), nn.Linear(64, 64), nn.Linear(64, 3)
    return net, torch.zeros(2, 6)
def lazy(): return Lazy(), torch.zeros(2, 6)
def called():
    module = lazy()[0]
    module(torch.zeros(2, 6))
    return module, torch.zeros(2, 6)
def normed(): return Normed(), torch.zeros(2, 6)
def parametrized():
    torch.manual_seed(3)
    net = Net()
    nn.utils.parametrizations.weight_norm(net.hidden)
    return net, torch.zeros(2, 6)
class OfTwo(Net):
    def forward(self, x):
        return super().forward(x.reshape(2, 6)) if self.training else super().forward(x)

def locked():
    import threading
    net = create()[0]
    net.lock = threading.Lock()
    return net, torch.zeros(2, 6)
def of_two(): return OfTwo(), torch.zeros(2, 6)

class Renamed(Net):
    def forward(self, y):
        return super().forward(y)

class Fewer(Net):
    def forward(self, x):
        return super().forward(x)[:, :2]

def renamed(): return Renamed(), torch.zeros(2, 6)
def fewer(): return Fewer(), torch.zeros(2, 6)
def odd():
    net = Net()
    net.hidden, net.middle, net.last = nn.Linear(6, 15), nn.Linear(15, 15), nn.Linear(15, 3)
    return net, torch.zeros(2, 6)
def wider():
    net = Net()
    net.hidden = nn.Linear(7, 16)
    return net, torch.zeros(2, 7)
def broken():
    net = Net()
    net.last.bias.data[0] = float("nan")
    return net, torch.zeros(2, 6)
def vector(outputs, batch): return nn.functional.cross_entropy(outputs, batch["labels"], reduction="none")
def flat(outputs, batch): return nn.functional.cross_entropy(outputs.detach(), batch["labels"])
def counted(outputs, batch): return (outputs.argmax(1) != batch["labels"]).sum()
def constant(outputs, batch): return torch.tensor(1.0, requires_grad=True)
def failing(outputs, batch): return batch["nothing"]
def spoilt(outputs, batch):
    value = outputs.mean()
    return value * float("nan") if len(outputs) > 2 and not outputs.requires_grad else value
"""

Act = Callable[[Path], Any]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET + MORE)
    np.savez(tmp_path / "train.npz", **make_samples(64, 1))
    np.savez(tmp_path / "test.npz", **make_samples(32, 2))
    return tmp_path


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing, "run_in_child", call_here)


def using(*methods: str, **options: Any) -> Act:
    """Returns a compression of one epoch; options that name a function of the file are completed by its path."""

    def act(place: Path) -> Any:
        given = {
            name: f"{place / 'net.py'}:{value[1:]}" if isinstance(value, str) and value.startswith(":") else value
            for name, value in options.items()
        }
        named = [method.replace("net.py", str(place / "net.py")) for method in methods]
        return run(place, *named, **{"epochs": 1, **given})

    return act


def with_data(name: str, change: Callable[[dict[str, Any]], dict[str, Any]], act: Act | None = None) -> Act:
    """Returns a compression with other data."""

    def changed(place: Path) -> Any:
        np.savez(place / name, **change(make_samples(64 if name == "train.npz" else 32, 7)))
        return (act or using())(place)

    return changed


CASES: dict[str, tuple[Act, str, Act]] = {
    "a network that fails in training": (
        using(function="only_inference"),
        "fails while it is trained, on 32 samples: ValueError: no training here",
        using(),
    ),
    "batches of one for statistics of batches": (
        using(function="normed", batch=1),
        "fails while it is trained, on 1 sample: ValueError: Expected more than 1 value",
        using(function="normed", batch=2),
    ),
    "a network without a gradient": (using(function="detached"), "no weight of .* decides the loss", using()),
    "a loss without a gradient": (using(loss=":flat"), "no weight of .* decides the loss", using(loss=":loss")),
    "a loss that is a constant": (using(loss=":constant"), "no weight of .* decides the loss", using(loss=":loss")),
    "a loss of many numbers": (using(loss=":vector"), r"returned torch.float32 \[2\], not one", using(loss=":loss")),
    "a loss that counts": (using(loss=":counted"), r"returned torch.int64 \[\], not one", using(loss=":loss")),
    "a loss that fails": (using(loss=":failing"), "failed: KeyError: 'nothing'", using(loss=":loss")),
    "a loss that is no number later": (using(loss=":spoilt"), "is nan on 32 samples of test.npz", using(loss=":loss")),
    "a network that cannot be captured": (
        using(function="branching"),
        "cannot be captured as a program, and so not be saved after its training",
        using(),
    ),
    "a student that cannot be captured": (
        using("distil:net.py:branching"),
        "net.py:branching cannot be captured as a program",
        using("distil:net.py:create"),
    ),
    "a network without weights": (
        using("distil:net.py:bare"),
        "net.py:bare has no weights to train",
        using("distil:net.py:create"),
    ),
    "a ratio that leaves nothing": (
        using("prune:magnitude:0.9999"),
        "400 weights of net.py:create in .* makes 400 zeros",
        using("prune:magnitude:0.99"),
    ),
    "a ratio that takes nothing": (
        using("prune:magnitude:0.0001"),
        "400 weights of net.py:create in .* makes 0 zeros",
        using("prune:magnitude:0.01"),
    ),
    "a source that cannot be copied": (
        using(function="locked", distil_from_source=True),
        "locked cannot be copied, to learn from as it was: TypeError: cannot pickle",
        using(function="locked"),
    ),
    "sizes written into forward": (
        using("prune:structured:0.5", function="fixed"),
        "cannot be pruned by channels",
        using("prune:structured:0.5"),
    ),
    "a ratio that leaves no eight channels": (
        using("prune:structured:0.95"),
        "nothing can be removed from net.py:create at 0.95: of every group of channels a multiple of 8 is left",
        using("prune:structured:0.5"),
    ),
    "lazy layers": (using(function="lazy"), "lazy layers, whose weights have no shapes", using(function="called")),
    "inputs in a list": (
        using(function="listed"),
        "no tensors, or tensors in lists",
        using(),
    ),
    "labels of one class": (
        with_data("train.npz", lambda data: data | {"labels": np.ones(64, int)}),
        "train.npz: all labels are 1",
        with_data("train.npz", lambda data: data),
    ),
    "labels of one class that judge": (
        with_data("test.npz", lambda data: data | {"labels": np.ones(32, int)}),
        "test.npz: all labels are 1",
        with_data("test.npz", lambda data: data),
    ),
    "other answers that judge": (
        with_data("test.npz", lambda data: {"x": data["x"], "target_y": np.zeros((32, 3))}),
        "test.npz lacks labels, which train.npz has",
        with_data("test.npz", lambda data: data),
    ),
    "labels that are no whole numbers, and judge": (
        with_data("test.npz", lambda data: data | {"labels": data["labels"].astype("f4")}),
        "test.npz: labels are float32, and classes are whole numbers",
        with_data("test.npz", lambda data: data),
    ),
    "samples that trained, in another type": (
        with_data("test.npz", lambda _: {k: v.astype("f8") if k == "x" else v for k, v in make_samples(64, 1).items()}),
        "all 64 samples of test.npz are in train.npz too",
        with_data("test.npz", lambda data: data),
    ),
    "a limit on a handful of samples": (
        with_data("test.npz", lambda data: {k: v[:4] for k, v in data.items()}, using(max_drop=50.0)),
        "test.npz holds 4 samples, of which each is 25 points",
        with_data("test.npz", lambda data: data, using(max_drop=99.0)),
    ),
    "inputs of another type": (
        with_data("train.npz", lambda data: data | {"x": (data["x"] * 9).astype("i4")}),
        "x is int32, the network takes torch.float32",
        with_data("train.npz", lambda data: data | {"x": (data["x"] * 9).astype("i4").astype("float32")}),
    ),
    "inputs of another rank": (
        with_data("train.npz", lambda data: data | {"x": data["x"][:, :, None]}),
        r"the network takes \[2, 6\]",
        with_data("train.npz", lambda data: data),
    ),
    "inputs of another width": (
        with_data("train.npz", lambda data: data | {"x": data["x"][:, :5]}),
        "fails on the first samples of train.npz",
        with_data("train.npz", lambda data: data),
    ),
    "labels for a network of numbers": (
        with_data("train.npz", lambda data: data | {"labels": data["labels"] + 1}),
        "labels go from 1 to 3, and the network has the classes 0 to 2",
        with_data("train.npz", lambda data: data),
    ),
    "labels of another shape": (
        with_data("train.npz", lambda data: data | {"labels": data["labels"][:, None]}),
        "no output .* belongs to labels",
        with_data("train.npz", lambda data: data),
    ),
    "targets of another shape": (
        with_data(
            "train.npz",
            lambda data: {"x": data["x"], "target_y": np.zeros((64, 4))},
            using(loss="mse", evaluation=None),
        ),
        "the targets .* do not have the shapes of the outputs",
        using(),
    ),
    "classes without labels": (
        with_data("train.npz", lambda data: {"x": data["x"], "target_y": data["x"][:, :3]}),
        "the training data have no `labels`",
        with_data("train.npz", lambda data: data),
    ),
    "a first axis that is no batch": (using(function="stateful"), "first axis is no batch, such as a state", using()),
    "inputs only": (
        with_data("train.npz", lambda data: {"x": data["x"]}),
        "train.npz holds inputs only",
        with_data("train.npz", lambda data: data),
    ),
    "inputs of another name": (
        with_data("train.npz", lambda data: {"y": data["x"], "labels": data["labels"]}),
        "missing x; unknown y",
        with_data("train.npz", lambda data: data),
    ),
    "arrays of other lengths": (
        with_data("train.npz", lambda data: data | {"labels": data["labels"][:60]}),
        r"different numbers of samples, or none \(x: 64, labels: 60\)",
        with_data("train.npz", lambda data: data),
    ),
    "a sample that is no number": (
        with_data("train.npz", lambda data: data | {"x": np.where(np.arange(64)[:, None] == 9, np.nan, data["x"])}),
        "x holds NaN or infinity, first in row 9",
        with_data("train.npz", lambda data: data),
    ),
    "labels that are no whole numbers": (
        with_data("train.npz", lambda data: data | {"labels": data["labels"].astype("f4")}),
        ": labels are float32, and classes are whole numbers from 0",
        with_data("train.npz", lambda data: data | {"labels": data["labels"].astype("int64")}),
    ),
    "numbers without targets": (
        using(loss="mse"),
        "have no `target_...`, which mse needs",
        using(loss="cross-entropy"),
    ),
    "weights that are no numbers": (
        using(function="broken"),
        "the loss of net.py:broken on the first samples of train.npz is nan",
        using(),
    ),
    "no input channels in fours": (
        using("prune:2:4", function="odd"),
        "no layer whose input channels come in fours",
        using("prune:magnitude:0.5", function="odd"),
    ),
    "layers too small for ranks": (
        using("low-rank:0.9"),
        "no layer of net.py:create is large enough for low-rank at 0.9",
        using("prune:structured:0.5"),
    ),
    "nothing to quantize": (
        using("qat", function="bare"),
        "no convolution or linear layer that can be quantized",
        using("prune:2:4"),
    ),
    "a student of other inputs": (
        using("distil:net.py:renamed"),
        "the student net.py:renamed takes y, and the teacher x",
        using("distil:net.py:create"),
    ),
    "a student of other outputs": (
        using("distil:net.py:fewer"),
        r"answers \[\[2, 2\]\] where the teacher answers \[\[2, 3\]\]",
        using("distil:net.py:create"),
    ),
    "a student of other shapes": (
        using("distil:net.py:wider"),
        "the student net.py:wider fails on the teacher's inputs",
        using("distil:net.py:create"),
    ),
    "a layer that is not there": (
        using("distil:net.py:create", match=("hidden=absent",)),
        "net.py:create has no layer absent",
        using("distil:net.py:create", match=("hidden=middle",)),
    ),
    "noise": (using(train="random:64"), "noise has no answers to learn", using()),
    "an ONNX model": (
        lambda place: (
            (place / "model.onnx").write_bytes(b"\x08\x08"),
            using(function=str(place / "model.onnx"))(place),
        ),
        "nothing here can train",
        using(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_compressed_is_refused_and_nothing_is_left(place: Path, name: str) -> None:
    act, words, _ = CASES[name]
    refused(lambda: act(place), words)
    assert not (place / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_compressed_as_the_hint_says_is_taken(place: Path, name: str) -> None:
    _, _, mended = CASES[name]
    assert mended(place).record.quality_after.samples


def test_what_a_limit_misses_is_refused_where_an_earlier_run_delivered_it(place: Path) -> None:
    np.savez(place / "train.npz", **make_samples(256, 1))
    run(place, "prune:2:4", out="good", epochs=8)
    source = str(place / "good")
    lost = run(place, "prune:magnitude:0.95", function=source, epochs=0).record
    assert lost.quality_before.points_lost(lost.quality_after) > 1
    with pytest.raises(LimitNotMetError, match="--max-drop allows 1") as caught:
        run(place, "prune:magnitude:0.95", function=source, epochs=0, max_drop=1.0)
    assert "choose another --out" in str(caught.value.hint)
    assert run(place, "prune:magnitude:0.95", function=source, epochs=0, max_drop=99.0).reused


def test_notes_are_kept_once(place: Path) -> None:
    told = Stopper("never")
    record = run(place, "prune:magnitude:0.5", function="parametrized", epochs=0, progress=told).record
    (stage,) = record.stages
    assert [note for note in stage.notes if note in record.notes] == []
    (note,) = record.notes
    assert "hidden.weight of net.py:parametrized were computed of other weights" in note
    assert sum(note in line for line in told.told) == 1
    # What is folded gives the same answers, and is pruned as other weights are.
    assert record.after.zero_share == 0.5
    assert record.before.parameters == 6 * 16 + 16 * 16 + 16 * 3 + 16 + 16 + 3


@pytest.mark.parametrize(
    ("make", "shape", "macs"),
    [
        # 5 steps of 4 gates, each of 6 + 8 numbers to 8.
        (lambda: torch.nn.LSTM(6, 8, batch_first=True), (2, 5, 6), 5 * 4 * (6 + 8) * 8),
        # 5 tokens of 8 to queries, keys, values and back; 5 x 5 scores of 8 numbers, twice; 8 to 16 and back.
        (
            lambda: torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            (2, 5, 8),
            5 * 8 * 24 + 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16,
        ),
    ],
)
def test_what_torch_runs_as_one_operator_is_counted(make: Any, shape: tuple[int, ...], macs: int) -> None:
    network = Network(name="net", module=make(), examples={"x": torch.zeros(shape)}, positional=1)
    assert count_macs(network) == macs
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled


def test_a_layer_whose_weight_is_read_where_it_is_called_is_left_as_it_is(place: Path) -> None:
    (place / "net.py").write_text(
        NET
        + """
class Read(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.read = nn.Linear(6, 64), nn.Linear(64, 64)
        self.third, self.last = nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x):
        x = nn.functional.linear(torch.relu(self.first(x)), self.read.weight)
        return self.last(torch.relu(self.third(torch.relu(x))))

def read(): return Read(), torch.zeros(2, 6)
"""
    )
    record = run(place, "low-rank:0.5", function="read", epochs=0).record
    assert record.stages[0].notes == (
        "cut third to rank 16 of 64",
        "read stay as they are: forward reads their weights itself",
    )


@pytest.mark.parametrize("method", ["prune:structured:0.5", "low-rank:0.3"])
def test_a_saved_program_has_no_layers_and_its_factory_has(place: Path, method: str) -> None:
    run(place, "prune:2:4", epochs=0, function="wide")
    program = str(place / "out" / "model.pt2")
    hint = refused(lambda: run(place, method, epochs=0, function=program, out="again"), "is a saved program")
    assert "FILE.py:FUNCTION" in hint
    assert not (place / "again").exists()
    assert run(place, method, epochs=0, function="wide", out="again").record.stages


def test_what_no_compression_wrote_is_replaced_only_when_told(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "model.pt2").write_text("mine")
    assert "--overwrite" in refused(lambda: run(place, epochs=0), "model.pt2 exists, and no compression wrote it")
    assert (place / "out" / "model.pt2").read_text() == "mine"
    assert run(place, epochs=0, overwrite=True).record.stages


def test_an_unfinished_compression_is_not_gone_on_with_as_another(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(place, "prune:2:4", epochs=3, progress=Stopper("epoch 1 of 3: loss"))
    hint = refused(lambda: run(place, "prune:2:4", epochs=3, lr=1e-3), "holds an unfinished compression of another")
    assert "--overwrite" in hint
    assert run(place, "prune:2:4", epochs=3, lr=1e-3, overwrite=True).record.stages[0].parameters["lr"] == "0.001"


def test_weights_of_other_code_are_not_gone_on_with(place: Path) -> None:
    """The code of a module that the factory imports may change while its own file, and so the key, stay."""
    with pytest.raises(KeyboardInterrupt):
        run(place, "prune:2:4", epochs=3, progress=Stopper("epoch 1 of 3: loss"))
    checkpoint = place / "out" / "checkpoint"
    (last,) = checkpoint.glob("last-*.safetensors")
    (best,) = checkpoint.glob("best-*.safetensors")
    last.write_bytes(best.read_bytes())  # the names in it are others
    hint = refused(lambda: run(place, "prune:2:4", epochs=3), "do not fit the network: its code has changed since")
    assert "--overwrite" in hint
    assert run(place, "prune:2:4", epochs=3, overwrite=True).record.stages


@pytest.mark.slow
def test_a_network_of_one_batch_is_not_trained_for_quantization(place: Path) -> None:
    hint = refused(
        lambda: run(place, "qat", function="of_two", epochs=0), "cannot be captured for training with a batch of any"
    )
    assert hint
    assert run(place, "qat", epochs=0).record.stages


def test_a_full_disk_is_told_as_one_and_what_was_kept_before_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, list[str]()

    def fill(path: Path, data: bytes) -> int:
        if path.suffix == ".safetensors":
            written.append(path.name)
            if len(written) > 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", fill)
        refused(lambda: run(place, "prune:2:4", epochs=3), "no space left on the disk")
    told = Stopper("never")
    run(place, "prune:2:4", epochs=3, progress=told)
    assert any("going on after epoch" in line for line in told.told)


def test_a_run_that_was_ended_between_two_files_of_its_result_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as ended:
        ended.setattr(compressing, "save_compressed", end)
        with pytest.raises(KeyboardInterrupt):
            run(place, "prune:2:4")
    assert (place / "out" / "model.pt2").exists()
    assert not (place / "out" / "compression.json").exists()
    told = Stopper("never")
    assert run(place, "prune:2:4", progress=told).record.stages
    assert not any("before training" in line for line in told.told), "what was trained was kept"
