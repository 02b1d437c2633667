"""Every way in which a GPU fails has a type of error and a remedy."""

from __future__ import annotations

import pytest
import torch

from inreach_fast import errors
from inreach_fast.kernels.gpu.devices.driver_errors import NO_DRIVER, OLD_DRIVER, as_gpu_error, gpu_error, typed_errors

UNAVAILABLE, MEMORY, LOST, OTHER = (
    errors.GpuUnavailableError, errors.GpuMemoryError, errors.GpuLostError, errors.GpuError,
)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        (NO_DRIVER, UNAVAILABLE, "install NVIDIA's driver"),
        (OLD_DRIVER, UNAVAILABLE, "update the driver"),
        *((code, UNAVAILABLE, "update the driver") for code in (35, 36, 222, 803, 804)),
        *((code, UNAVAILABLE, "CUDA_VISIBLE_DEVICES") for code in (100, 101, 46, 802, 805, 807)),
        *((code, UNAVAILABLE, "backend='cupy'") for code in (200, 209, 218, 221)),
        (2, MEMORY, "set_gpu_memory_limit"),
        *((code, LOST, "new process") for code in (4, 201, 214, 220, 700, 702, 709, 710, 715, 716, 718, 719, 999)),
        *((code, OTHER, "capture") for code in (900, 901, 906)),
        *((code, OTHER, "docs/gpu.md") for code in (1, 400, 500, 720)),
    ],
)
def test_each_code(code: int, kind: type[errors.GpuError], remedy: str) -> None:
    error = gpu_error(code, "NAME", call="cuCall", gpu="GPU 3")
    assert type(error) is kind
    assert isinstance(error, errors.BackendError)
    text = str(error)
    assert text.startswith("GPU 3: cuCall: NAME")
    assert remedy in text
    assert isinstance(error, MemoryError) == (code == 2)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MEMORY),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nhints"), LOST),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), UNAVAILABLE),
        (RuntimeError("Found no NVIDIA driver on your system."), UNAVAILABLE),
        (RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."), UNAVAILABLE),
        (AssertionError("Torch not compiled with CUDA enabled"), UNAVAILABLE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR, CUDA 13"), OTHER),
        (ImportError("libnvrtc.so.13: cannot open shared object file"), UNAVAILABLE),
    ],
)
def test_what_torch_raises(error: Exception, kind: type[errors.GpuError]) -> None:
    with pytest.raises(errors.GpuError) as caught, typed_errors("GPU 0"):
        raise error
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("CUDA"), KeyError("x"), errors.NonFiniteError("x"), RuntimeError("x")])
def test_what_is_none_of_a_gpus_passes(error: Exception) -> None:
    assert as_gpu_error(error) is None
    with pytest.raises(type(error)) as caught, typed_errors():
        raise error
    assert caught.value is error
