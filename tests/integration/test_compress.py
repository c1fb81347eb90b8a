"""Networks made smaller, trained for real: known answers, runs that were interrupted, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compression_runs import NET, Stopper, call_here, make_samples, run
from refusing import refused

torch = pytest.importorskip("torch")

from modelwright.compression import compressing  # noqa: E402
from modelwright.compression.data import open_data  # noqa: E402
from modelwright.compression.magnitude import find_masks  # noqa: E402
from modelwright.compression.threads import settle_threads  # noqa: E402
from modelwright.compression.training import is_as_good  # noqa: E402
from modelwright.compression.two_four import find_two_four_mask  # noqa: E402
from modelwright.core.errors import BadInputError, LimitNotMetError, ModelwrightError  # noqa: E402
from modelwright.core.records.compressed import Quality  # noqa: E402
from modelwright.exporters.torch.source import load_program  # noqa: E402

WEIGHTS = 6 * 16 + 16 * 16 + 16 * 3


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    np.savez(tmp_path / "train.npz", **make_samples(256, 1))
    np.savez(tmp_path / "test.npz", **make_samples(128, 2))
    return tmp_path


@pytest.fixture(autouse=True)
def _in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets what is not slow run here: a child spends seconds on importing torch, and does the same."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(compressing, "run_in_child", call_here)


def load(folder: Path) -> Any:
    return load_program(folder / "model.pt2", None, trust=False)


# What comes out.


def test_of_equal_weights_exactly_as_many_as_asked_for_become_zero() -> None:
    weights = {"a": torch.ones(3, 5), "b": torch.tensor([[2.0, -0.5], [1.0, 1.0]])}
    masks = find_masks(weights, 0.4)  # 8 of 19: the half one, and the first seven of those that are 1
    assert sum(int((mask == 0).sum()) for mask in masks.values()) == 8
    assert masks["b"].tolist() == [[1, 0], [1, 1]]
    assert masks["a"].reshape(-1).tolist() == [0] * 7 + [1] * 8


def test_two_of_every_four_input_channels_stay_at_every_place_of_a_kernel() -> None:
    weight = torch.randn(5, 8, 3, 3)
    mask = find_two_four_mask(weight)
    groups = (weight.abs() * mask).reshape(5, 2, 4, 3, 3)
    assert ((groups > 0).sum(2) == 2).all()
    largest = weight.abs().reshape(5, 2, 4, 3, 3).sort(dim=2).values[:, :, 2:].sum(2)
    torch.testing.assert_close(groups.sum(2), largest)


def test_a_pruned_network_has_exactly_the_zeros_and_is_a_source(place: Path) -> None:
    made = run(place, "prune:magnitude:0.3", "prune:magnitude:0.5")
    source = load(place / "out")
    weights = [value for name, value in source.program.state_dict.items() if name.endswith("weight")]
    assert sum(weight.numel() for weight in weights) == WEIGHTS
    assert sum(int((weight == 0).sum()) for weight in weights) == WEIGHTS // 2
    record = made.record
    assert (record.after.zero_share, record.before.zero_share) == (0.5, 0.0)
    assert record.after.macs == record.before.macs == WEIGHTS
    assert record.after.parameters == WEIGHTS + 16 + 16 + 3
    assert record.after.deflated_bytes < record.before.deflated_bytes
    assert [len(stage.epochs) for stage in record.stages] == [3, 3]
    assert source.output_names == ("scores",)
    # It gives the answers that were judged.
    samples = make_samples(128, 2)
    with torch.no_grad():
        answers = source.module(x=torch.from_numpy(samples["x"])).argmax(1).numpy()
    assert record.quality_after.value == pytest.approx((answers == samples["labels"]).mean())
    assert record.quality_after.value > record.quality_before.value
    assert run(place, "prune:magnitude:0.3", "prune:magnitude:0.5").reused


def test_zeros_of_two_four_stay_through_training_and_what_does_not_fit_is_named(place: Path) -> None:
    made = run(place, "prune:2:4")
    state = load(place / "out").program.state_dict
    for layer in ("middle", "last"):
        assert ((state[f"{layer}.weight"].reshape(-1, 4) != 0).sum(1) == 2).all()
    assert int((state["hidden.weight"] == 0).sum()) == 0
    assert made.record.sparsity == {"hidden": 0.0, "middle": 0.5, "last": 0.5}
    assert any("leaves hidden as they are" in note for note in made.record.stages[0].notes)


def test_least_squares_come_close_to_what_made_the_targets(place: Path) -> None:
    x = np.random.default_rng(1).standard_normal((512, 6)).astype(np.float32)
    made = np.random.default_rng(2).standard_normal((6, 2)).astype(np.float32)
    for name, rows in (("train", x[:384]), ("test", x[384:])):
        np.savez(place / f"{name}.npz", input=rows, target_y=rows @ made + [1, -2])
    result = run(place, function="regression", loss="mse", epochs=30, lr=0.1)
    assert result.record.quality_before.metric == "r2"
    # 6 of 12 weights are gone: R2 is at best what the six largest explain.
    kept = np.sort(np.abs(made).reshape(-1))[6:]
    assert result.record.quality_after.value == pytest.approx(explained(made, kept[0]), abs=0.03)


def explained(made: Any, least: float) -> float:
    """Returns the mean share of the targets' variance that weights of a size and more explain; inputs vary by 1."""
    large = np.where(np.abs(made) >= least, made, 0)
    return float(((large**2).sum(0) / (made**2).sum(0)).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("macs", "batch", "asked", "expected"),
    [(1_000_000, 64, None, 1), (2_000_000, 64, None, 3), (1_000_000, 64, "3", 3), (1_000_000, 1_000, None, 3)],
)
def test_one_thread_trains_where_a_step_is_small_unless_more_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, macs: int, batch: int, asked: str | None, expected: int
) -> None:
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        settle_threads(macs, batch)
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(threads)


def test_a_function_that_yields_batches_and_a_loss_of_the_users_give_the_same(place: Path) -> None:
    plain = run(place)
    other = run(place, out="other", train=f"{place / 'net.py'}:batches", loss=f"{place / 'net.py'}:loss")
    assert other.record.files["weights.safetensors"] == plain.record.files["weights.safetensors"]
    assert other.record.train.sha256 == plain.record.train.sha256
    assert other.record.quality_after.metric == "loss"
    assert other.record.quality_after.loss == pytest.approx(plain.record.quality_after.loss)


def test_rows_of_the_users_data_do_not_lie_in_the_program(place: Path) -> None:
    run(place, function="without_examples")
    source = load(place / "out")
    assert not source.kwargs["x"].any()
    assert source.kwargs["x"].shape == (2, 6)


def test_a_compressed_folder_is_compressed_again(place: Path) -> None:
    run(place)
    again = run(place, "prune:magnitude:0.75", function=str(place / "out"), out="again")
    assert again.record.after.zero_share == 0.75
    assert again.record.quality_before == run(place).record.quality_after


@pytest.mark.parametrize(
    ("new", "earlier", "taken"),
    [
        (0.86, [], True),
        (0.86, [0.5, 0.9], False),  # a standard error of 90 % of 100 samples is 3 points
        (0.875, [0.5, 0.9], True),
        (0.95, [0.9], True),
    ],
)
def test_the_last_epoch_is_taken_that_is_not_worse_beyond_chance(new: float, earlier: list[float], taken: bool) -> None:
    def quality(value: float, metric: Any = "accuracy") -> Quality:
        return Quality(metric=metric, value=value, loss=1.0, samples=100)

    assert is_as_good(quality(new), [quality(value) for value in earlier]) is taken
    assert is_as_good(quality(0.3, "loss"), [quality(0.4, "loss"), quality(0.31, "loss")])
    assert not is_as_good(quality(0.899, "r2"), [quality(0.9, "r2")])


# Runs that end early.


@pytest.mark.slow
@pytest.mark.parametrize("words", ["prune:magnitude:0.3: epoch 2 of 4: loss", "prune:2:4: epoch 1 of 4: loss"])
def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(place: Path, words: str) -> None:
    methods = ("prune:magnitude:0.3", "prune:2:4")
    whole = run(place, *methods, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        run(place, *methods, epochs=4, out="cut", progress=Stopper(words))
    assert sorted(path.name for path in (place / "cut").iterdir()) == ["checkpoint"]
    told = Stopper("never")
    cut = run(place, *methods, epochs=4, out="cut", progress=told)
    assert any("going on after epoch" in line for line in told.told)
    assert not any(words in line for line in told.told[:6])
    assert cut.record.files["weights.safetensors"] == whole.record.files["weights.safetensors"]
    assert [stage.epochs for stage in cut.record.stages] == [stage.epochs for stage in whole.record.stages]
    assert sorted(path.name for path in (place / "cut").iterdir()) == sorted([*cut.record.files, "compression.json"])


@pytest.mark.slow
def test_an_interrupted_run_delivers_its_best_with_fewer_epochs(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(place, "prune:2:4", epochs=50, progress=Stopper("epoch 3 of 50: loss"))
    made = run(place, "prune:2:4", epochs=2)
    assert len(made.record.stages[0].epochs) in (4, 5)  # one more may have been kept before the end


def test_a_budget_ends_training_and_what_was_best_is_taken(place: Path) -> None:
    made = run(place, "prune:2:4", epochs=100_000, budget_s=1.0)
    stage = made.record.stages[0]
    assert stage.stopped
    assert "budget" in stage.stopped
    best = max(epoch.held.value for epoch in stage.epochs)
    # Of 32 held-back samples, to within a standard error.
    assert stage.epochs[stage.chosen].held.value >= best - (best * (1 - best) / 32) ** 0.5


def test_a_limit_that_is_missed_delivers_nothing_and_a_higher_one_what_was_trained(place: Path) -> None:
    run(place, "prune:2:4", out="good", epochs=8)
    source = str(place / "good")
    with pytest.raises(LimitNotMetError, match="--max-drop allows 1") as caught:
        run(place, "prune:magnitude:0.95", function=source, epochs=1, max_drop=1.0)
    assert sorted(path.name for path in (place / "out").iterdir()) == ["checkpoint"]
    allowed = float(str(caught.value.hint).partition("--max-drop ")[2].split()[0])
    told = Stopper("epoch 1 of 1: loss")
    made = run(place, "prune:magnitude:0.95", function=source, epochs=1, max_drop=allowed, progress=told)
    assert made.record.after.zero_share == pytest.approx(0.95, abs=0.001)


def test_a_limit_that_is_missed_is_kept_by_training_for_longer(place: Path) -> None:
    run(place, "prune:2:4", out="good", epochs=8)
    source, told = str(place / "good"), list[str]()
    longer = run(place, "prune:magnitude:0.8", function=source, epochs=20, lr=1e-2, out="fresh", max_drop=3.0)
    with pytest.raises(LimitNotMetError):
        run(place, "prune:magnitude:0.8", function=source, epochs=1, lr=1e-2, out="again", max_drop=3.0)
    again = run(
        place, "prune:magnitude:0.8", function=source, epochs=20, lr=1e-2, out="again", max_drop=3.0,
        progress=told.append,
    )  # fmt: skip
    assert "* beginning anew: what is kept was trained with --epochs 1" in told
    assert again.record.stages[0].epochs == longer.record.stages[0].epochs, "as if it had never been trained for less"


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(place: Path) -> None:
    run(place, "prune:2:4", out="good", epochs=8)
    settings = {"function": str(place / "good"), "lr": 1e-5, "epochs": 30, "max_drop": 0.0}
    with pytest.raises(LimitNotMetError):
        run(place, "prune:magnitude:0.95", budget_s=1e-3, **settings)
    told: list[str] = []
    made = run(place, "prune:magnitude:0.95", **{**settings, "max_drop": 1000.0}, progress=told.append)
    assert "* going on after epoch 1 of prune:magnitude:0.95" in told
    (stage,) = made.record.stages
    assert (len(stage.epochs), stage.stopped) == (31, None)


def test_every_sample_trains_in_batches_of_one(place: Path) -> None:
    data = open_data(place / "train.npz", "train.npz", {"x": torch.zeros(2, 6)})
    numbers = np.arange(5)
    assert [len(batch["labels"]) for batch in data.batches(numbers, 1)] == [1] * 5
    assert [len(batch["labels"]) for batch in data.batches(numbers, 2)] == [2, 2], "statistics need two"
    assert [len(batch["labels"]) for batch in data.batches(numbers[:1], 2)] == [1]


# What is refused: one clear error, and nothing is left.


def save(place: Path, name: str, **arrays: Any) -> Path:
    np.savez(place / name, **(make_samples(256, 1) | arrays))
    return place / name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda place: save(place, "train.npz", x=np.zeros((256, 7), np.float32)),
            r"fails on the first samples.*\[2, 7\]",
        ),
        (lambda place: save(place, "train.npz", x=np.zeros((256, 6, 1), np.float32)), r"the network takes \[2, 6\]"),
        (lambda place: save(place, "train.npz", x=np.zeros((256, 6), np.uint8)), "x is uint8, the network takes"),
        (lambda place: save(place, "train.npz", y=np.zeros(256)), "unknown y"),
        (lambda place: save(place, "train.npz", labels=np.full(256, 3)), "labels go from 3 to 3.*classes 0 to 2"),
        (lambda place: save(place, "train.npz", labels=np.zeros(255, int)), "different numbers of samples"),
        (lambda place: save(place, "train.npz", labels=np.zeros(256)), "labels are float64"),
        (lambda place: save(place, "train.npz", x=np.full((256, 6), np.nan, np.float32)), "first in row 0"),
        (lambda place: np.savez(place / "train.npz", x=make_samples(256, 1)["x"]), "nothing to train towards"),
        (lambda place: save(place, "test.npz"), "all 256 samples of test.npz are in train.npz too"),
    ],
)
def test_data_that_cannot_be_used_are_refused(place: Path, change: Callable[[Path], Any], words: str) -> None:
    change(place)
    refused(lambda: run(place), words)
    assert not (place / "out").exists()


def test_training_that_runs_away_is_refused_and_a_lower_rate_helps(place: Path) -> None:
    for name, seed in (("train.npz", 1), ("test.npz", 2)):
        samples = make_samples(256, seed)
        np.savez(place / name, **(samples | {"x": samples["x"] * 1e18}))
    hint = refused(lambda: run(place, "prune:2:4", lr=1e18), "training has run away")
    assert "--lr" in hint
    assert not (place / "out").exists()
    assert run(place, "prune:2:4", lr=1e-6).record.quality_after.samples == 256


def test_another_result_is_replaced_only_when_told(place: Path) -> None:
    first = run(place)
    hint = refused(lambda: run(place, seed=1), "holds the result of another source")
    assert "--overwrite" in hint
    assert json.loads((place / "out" / "compression.json").read_text())["seed"] == 0
    second = run(place, seed=1, overwrite=True)
    assert second.record.files != first.record.files
    assert run(place, seed=1).reused


def test_an_onnx_model_is_refused(place: Path) -> None:
    (place / "model.onnx").write_bytes(b"\x08\x08")
    hint = refused(lambda: run(place, function=str(place / "model.onnx")), "nothing here can train")
    assert "FILE.py:FUNCTION" in hint


def test_a_damaged_checkpoint_is_named(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(place, "prune:2:4", progress=Stopper("epoch 1 of 2: loss"))
    (file,) = (place / "out" / "checkpoint").glob("last-*.safetensors")
    file.write_bytes(b"damaged")
    hint = refused(lambda: run(place, "prune:2:4"), "last-.*cannot be read")
    assert "--overwrite" in hint
    run(place, "prune:2:4", overwrite=True)


@pytest.mark.slow
def test_errors_cross_from_the_process_that_trains(place: Path) -> None:
    with pytest.raises(BadInputError):
        run(place, train=str(place / "absent.npz"))
    save(place, "train.npz", x=np.zeros((256, 7), np.float32))
    refused(lambda: run(place), "fails on the first samples")
    with pytest.raises(ModelwrightError):
        run(place, "prune:structured:2")
    assert not (place / "out").exists()
