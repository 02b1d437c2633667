"""Training of a peer's network: the same bits whether or not it was killed; checkpoints that cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inreach_fast.errors import ParameterError, SaveError, TrainingError
from inreach_fast.evaluation.peers import PeerSettings
from inreach_fast.evaluation.peers.training import Schedule, cosine, drawn_images, step_generator, train

STEPS, EVERY = 9, 2
IMAGES = [np.full((4, 4, 3), value, np.uint8) for value in range(5)]


class Killed(Exception):
    pass


def network(seed: int = 0) -> nn.Module:
    """With batch normalisation, whose running statistics belong to the state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), 0.01)


def momentum(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), 0.01, momentum=0.9, weight_decay=0.1)


def trained(folder, *, optimiser=adam, kill_after=None, images=IMAGES, seed=0, module=None, told=None, **changed):
    """The network's state and the losses made here; killed in the progress function after a number of steps.

    ``told``: a list to which the steps of which progress tells are added.
    """
    module = network() if module is None else module

    def loss_of(step: int) -> torch.Tensor:
        rows = step_generator(seed, step).normal(size=(6, 3)).astype(np.float32)
        return (module(torch.from_numpy(rows)) - torch.from_numpy(rows[:, :1])).square().mean()

    def progress(stage: str, done: int, total: int) -> None:
        assert (stage, total) == ("train tiny", STEPS)
        if told is not None:
            told.append(done)
        if done == kill_after:
            raise Killed

    settings = {
        "name": "tiny", "steps": STEPS, "settings": {"seed": seed}, "threads": 1,
        "folder": folder, "every": EVERY, "learning_rate": cosine(0.01, STEPS),
    }  # fmt: skip
    losses = train(module, optimiser(module), loss_of, images, Schedule(**(settings | changed)), progress)
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}, losses


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module", params=[adam, momentum])
def optimiser(request):
    return request.param


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO, logger="inreach_fast")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("kill_after", [1, 4, 5, STEPS])
def test_a_killed_training_ends_with_the_same_bits(tmp_path, optimiser, kill_after):
    whole, losses = trained(None, optimiser=optimiser)
    with pytest.raises(Killed):
        trained(tmp_path, optimiser=optimiser, kill_after=kill_after)
    resumed, later = trained(tmp_path, optimiser=optimiser)
    assert_same(resumed, whole)
    done = STEPS if kill_after == STEPS else kill_after // EVERY * EVERY
    assert later == losses[done:]


def test_checkpoints_change_no_bits_and_nothing_else_is_left(tmp_path):
    plain, _ = trained(None)
    kept, _ = trained(tmp_path / "new" / "folder")
    assert_same(kept, plain)
    (file,) = (tmp_path / "new" / "folder").iterdir()
    assert file.name.startswith("tiny-")
    assert file.suffix == ".safetensors"


def test_progress_begins_with_the_steps_that_are_done(tmp_path):
    told: list[int] = []
    with pytest.raises(Killed):
        trained(tmp_path, kill_after=5, told=told)
    assert told == [0, 1, 2, 3, 4, 5]
    told.clear()
    trained(tmp_path, told=told)
    assert told == [4, 5, 6, 7, 8, 9]


def test_a_finished_training_is_not_repeated(tmp_path):
    first, _ = trained(tmp_path)
    again, losses = trained(tmp_path)
    assert_same(again, first)
    assert losses == []


def test_the_network_is_left_in_evaluation_mode():
    module = network()
    trained(None, module=module)
    assert not any(part.training for part in module.modules())


def altered(content: bytes) -> bytes:
    """One bit of a weight flipped; the file still reads as safetensors."""
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(
    "damage", [altered, lambda content: content[:-9], lambda content: b"", lambda content: b"\xff" * 64]
)
def test_a_damaged_checkpoint_is_reported_and_replaced(tmp_path, messages, damage):
    whole, losses = trained(None)
    with pytest.raises(Killed):
        trained(tmp_path, kill_after=4)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    again, made = trained(tmp_path)
    assert made == losses
    assert_same(again, whole)
    (said,) = [text for text in messages() if "damaged" in text]
    assert str(file) in said
    assert said.endswith("training begins anew and replaces it")
    assert trained(tmp_path)[1] == []


@pytest.mark.parametrize(
    "change",
    [
        {"images": IMAGES[:-1]},
        {"images": IMAGES[::-1]},
        {"seed": 1},
        {"settings": {"seed": 0, "rate": 2.0}},
        {"module": 1},
    ],
    ids=["fewer images", "other order", "other seed", "other settings", "other initial weights"],
)
def test_a_checkpoint_of_another_training_is_left_alone(tmp_path, messages, change):
    with pytest.raises(Killed):
        trained(tmp_path, kill_after=4)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if "module" in change:
        change = {"module": network(change["module"])}
    assert len(trained(tmp_path, **change)[1]) == STEPS
    assert file.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 2
    assert any("1 checkpoints of other settings or images" in text for text in messages())


def test_a_checkpoint_under_the_name_of_another_training_is_not_used(tmp_path, messages):
    trained(tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    whole, _ = trained(tmp_path, seed=1)
    (other,) = set(tmp_path.iterdir()) - {file}
    other.write_bytes(content)
    again, losses = trained(tmp_path, seed=1)
    assert len(losses) == STEPS
    assert_same(again, whole)
    assert any("is of other settings or images" in text for text in messages())


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"file.*cannot be written .*; free some space or choose another folder"):
        trained(tmp_path / "file" / "folder")


def test_a_loss_that_is_not_finite():
    with pytest.raises(TrainingError, match=r"tiny: the loss of step \d+ is (nan|inf); train with a lower"):
        trained(None, learning_rate=lambda step: 1e30)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, "3"])
def test_a_number_of_steps_that_is_none(steps):
    with pytest.raises(ParameterError, match="training_steps: expected a whole number of at least 1, got"):
        PeerSettings((32, 32), lambda: None, training_steps=steps)


def test_threads_and_generators_are_those_of_before():
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    of_numpy = np.random.get_state()[1]  # noqa: NPY002
    trained(None, threads=before + 1)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], of_numpy)  # noqa: NPY002


def test_all_images_are_drawn_before_one_comes_again():
    batches = [drawn_images(3, 5, 4, step) for step in range(5)]
    drawn = np.concatenate(batches).reshape(4, 5)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(5), (4, 1)))
    assert len({tuple(turn) for turn in drawn.tolist()}) > 1
    assert batches == [drawn_images(3, 5, 4, step) for step in range(5)]
    assert batches != [drawn_images(4, 5, 4, step) for step in range(5)]
    assert drawn_images(0, 1, 3, 2) == [0, 0, 0]


def test_the_learning_rate_falls_along_half_a_cosine():
    rate = cosine(0.03, 256)
    assert [rate(step) for step in (0, 64, 128, 256)] == pytest.approx(
        [0.03, 0.015 * (1 + 0.5**0.5), 0.015, 0.0], abs=1e-12
    )
