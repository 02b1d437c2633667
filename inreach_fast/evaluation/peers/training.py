"""Training of a peer's network: seeded, shown by a progress function, and taken up again after it was killed.

Everything that a step draws comes from a generator of its own, seeded with the step's number (`step_generator`). So the
state of a training is its weights, the optimiser's, and the number of steps done. A checkpoint holds these and nothing
else, as safetensors with a sha256; what continues from it ends with the bits of a training that was not interrupted.

**Bits.** With one thread, equal seeds, settings and images give equal weights on one machine and version of torch. With
several threads torch promises nothing: the weights were the same from run to run with an equal number of threads
wherever we looked, and were others with another number. A checkpoint may be continued with another number; it ends with
the bits of neither.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ...array_types import UInt8Array
from ...errors import SaveError, TrainingError
from ...storage.files import byte_view, whole_file
from ...system.progress import Progress, no_progress
from ...system.threads import before_torch, thread_limit

FORMAT: Final = "inreach_fast training 1"
"""Of checkpoints; another number whenever a method's training changes, since old weights would be continued else."""
_NETWORK, _OPTIMISER = "network/", "optimiser/"
_ORDER, _STEP = 1, 2  # purposes of generators

_log = logging.getLogger("inreach_fast")


@dataclass(frozen=True)
class Schedule:
    """How a network is trained.

    Attributes:
        name: of the method; progress is shown as "train NAME", and a checkpoint is ``NAME-<key>.safetensors``.
        steps: updates of the weights.
        settings: all that the weights depend on beside the images and the initial weights, as JSON types.
        learning_rate: of a step, by its number from 0; None: the optimiser's own, always.
        threads: of torch; None: as they are.
        folder: where checkpoints are kept, made if it is missing; None: nowhere.
        every: steps from one checkpoint to the next. There is one after the last step in any case.
    """

    name: str
    steps: int
    settings: Mapping[str, Any]
    learning_rate: Callable[[int], float] | None = None
    threads: int | None = None
    folder: Path | None = None
    every: int = 250


def step_generator(seed: int, step: int) -> np.random.Generator:
    """The generator of one step's draws; the same for equal arguments, whatever was drawn before."""
    return np.random.Generator(np.random.PCG64([seed, step, _STEP]))


def drawn_images(seed: int, images: int, batch: int, step: int) -> list[int]:
    """Numbers of the images of a step's batch. All images are drawn once, in a random order, before one comes again."""
    rounds: dict[int, Any] = {}
    numbers = []
    for place in range(step * batch, (step + 1) * batch):
        turn = place // images
        if turn not in rounds:
            rounds[turn] = np.random.Generator(np.random.PCG64([seed, turn, _ORDER])).permutation(images)
        numbers.append(int(rounds[turn][place % images]))
    return numbers


def cosine(rate: float, steps: int) -> Callable[[int], float]:
    """A learning rate that falls from ``rate`` to 0 along half a cosine (SGDR without restarts)."""
    return lambda step: rate * (1 + math.cos(math.pi * step / steps)) / 2


def train(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss_of: Callable[[int], torch.Tensor],
    images: Sequence[UInt8Array],
    schedule: Schedule,
    progress: Progress = no_progress,
) -> list[float]:
    """Trains ``network`` in place, from the newest checkpoint of the same training if there is one.

    Args:
        network: on the CPU, with its initial weights; everything that is trained is in it.
        optimiser: of its parameters, new.
        loss_of: the loss of a step, by its number from 0. It may depend on nothing but that number and ``network``.
        images: what it is trained on; they name the checkpoint, together with settings and initial weights.
        progress: called as progress("train NAME", steps done, steps), at first with the steps of the checkpoint.

    Returns:
        The losses of the steps that were made here.

    Raises:
        TrainingError: a loss is not finite. SaveError: a checkpoint cannot be written. ForkError: see `before_torch`.
    """
    checkpoint = None
    if schedule.folder is not None:
        checkpoint = _Checkpoint(schedule.folder, schedule.name, training_key(network, images, schedule))
    elif schedule.steps > schedule.every:
        _log.info("%s: without a folder (--cache) a training that is interrupted begins anew", schedule.name)
    threads = torch.get_num_threads() if schedule.threads is None else schedule.threads
    before_torch(threads)
    losses: list[float] = []
    with thread_limit(threads), torch.enable_grad():
        done = 0 if checkpoint is None else checkpoint.restore(network, optimiser)
        if 0 < done < schedule.steps:
            _log.info("%s: training continues after step %d of %d", schedule.name, done, schedule.steps)
        progress(f"train {schedule.name}", done, schedule.steps)
        network.train()
        for step in range(done, schedule.steps):
            if schedule.learning_rate is not None:
                for group in optimiser.param_groups:
                    group["lr"] = schedule.learning_rate(step)
            optimiser.zero_grad()
            loss = loss_of(step)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"{schedule.name}: the loss of step {step + 1} is {losses[-1]}; train with a lower learning rate"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if checkpoint is not None and ((step + 1) % schedule.every == 0 or step + 1 == schedule.steps):
                checkpoint.write(step + 1, network, optimiser)
            progress(f"train {schedule.name}", step + 1, schedule.steps)
        network.eval()
    return losses


def training_key(network: nn.Module, images: Sequence[UInt8Array], schedule: Schedule) -> str:
    """Hex sha256 of what trained weights depend on: settings, images, initial weights, torch; not the threads."""
    settings = {"name": schedule.name, "steps": schedule.steps, "torch": str(torch.__version__), **schedule.settings}
    digest = hashlib.sha256(f"{FORMAT}|{json.dumps(settings, sort_keys=True)}|".encode())
    for image in images:
        digest.update(f"{image.shape}|".encode())
        digest.update(byte_view(image))
    _add(digest, network.state_dict())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Checkpoint:
    """The file of one training, by its key, in a folder that trainings share."""

    folder: Path
    name: str
    key: str

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}-{self.key[:16]}.safetensors"

    def write(self, step: int, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        tensors = {_NETWORK + name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        for number, state in optimiser.state_dict()["state"].items():
            kept = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
            tensors |= {f"{_OPTIMISER}{number}/{name}": value.contiguous() for name, value in kept.items()}
        about = {"format": FORMAT, "key": self.key, "step": str(step)}
        content = save(tensors, about | {"sha256": _content_sha256(about, tensors)})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self.path) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SaveError(
                f"{self.path}: the checkpoint cannot be written ({error}); free some space or choose another folder"
            ) from error

    def restore(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Puts the checkpoint into network and optimiser; returns its step, or 0 if there is none that can be used."""
        read = self._read()
        if read is None:
            return 0
        step, tensors = read
        network.load_state_dict({name.removeprefix(_NETWORK): tensors[name] for name in _with(tensors, _NETWORK)})
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name in _with(tensors, _OPTIMISER):
            number, _, entry = name.removeprefix(_OPTIMISER).partition("/")
            state.setdefault(int(number), {})[entry] = tensors[name]
        optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
        return step

    def _read(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        if not self.path.exists():
            others = len(list(self.folder.glob(f"{self.name}-*.safetensors")))
            if others:
                _log.info(
                    "%s: %d checkpoints of other settings or images in %s are left alone; training begins anew",
                    *(self.name, others, self.folder),
                )
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                about = dict(file.metadata() or {})
                # Copies: the file is mapped, and will be replaced.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            self._ignore(f"is damaged ({error})")
            return None
        if about.get("format") != FORMAT or about.pop("sha256", None) != _content_sha256(about, tensors):
            self._ignore("is damaged (another sha256 than it says)")
        elif about["key"] != self.key:
            self._ignore("is of other settings or images")
        else:
            return int(about["step"]), tensors
        return None

    def _ignore(self, why: str) -> None:
        _log.warning("%s: the checkpoint %s; training begins anew and replaces it", self.path, why)


def _with(tensors: Mapping[str, Any], prefix: str) -> list[str]:
    return [name for name in tensors if name.startswith(prefix)]


def _content_sha256(about: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    _add(digest, tensors)
    return digest.hexdigest()


def _add(digest: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    for name in sorted(tensors):
        array = tensors[name].detach().numpy()
        digest.update(f"|{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(byte_view(array))
