"""The kernels for every architecture, without a device: nvcc's warnings are errors, ptxas reports, NVRTC agrees."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from cuda_host.build import kernel_names

from inreach_fast.kernels.gpu.devices.nvrtc import NVRTC_OPTIONS, kernel_folder, kernel_source

from . import nvcc

needs_nvcc = pytest.mark.skipif(nvcc.compiler() is None, reason="no nvcc here: the kernels were not compiled for GPUs")


@needs_nvcc
@pytest.mark.parametrize("architecture", nvcc.ARCHITECTURES)
def test_no_spills_and_shared_memory_within_the_limit(architecture: int) -> None:
    report = nvcc.reports()[architecture]
    assert set(report) == set(kernel_names())
    assert {name: usage.spilled for name, usage in report.items() if usage.spilled} == {}
    assert {name: usage.stack for name, usage in report.items() if usage.stack} == {}
    for name, usage in report.items():
        assert usage.shared <= nvcc.STATIC_SHARED, name
        assert nvcc.occupancy(name, usage, architecture) > 0.0, name


@needs_nvcc
def test_registers_and_occupancy(capsys: pytest.CaptureFixture[str]) -> None:
    reports = nvcc.reports()
    header = f"{'registers / theoretical occupancy':28}" + "".join(f"{f'sm_{a}':>11}" for a in nvcc.ARCHITECTURES)
    lines = [header]
    for name in kernel_names():
        cells = [
            f"{usage.registers:4d} {nvcc.occupancy(name, usage, a):4.0%}"
            for a, usage in ((a, reports[a][name]) for a in nvcc.ARCHITECTURES)
        ]
        lines.append(f"{name:28}" + "".join(f"{cell:>11}" for cell in cells))
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert len(lines) > 20


def test_a_report_is_read_as_ptxas_writes_it() -> None:
    text = (
        "ptxas info    : Compiling entry function 'one' for 'sm_90'\n"
        "ptxas info    : Function properties for one\n"
        "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 80 registers, used 1 barriers, 8 bytes cumulative stack size, 24064 bytes smem\n"
        "ptxas info    : Compiling entry function 'two' for 'sm_90'\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 24 registers, used 0 barriers\n"
    )
    assert nvcc.parsed(text) == {"one": nvcc.Usage(80, 24064, 16, 8), "two": nvcc.Usage(24, 0, 0, 0)}
    # 80 registers of 128 threads: 6 blocks; 24 KB of shared memory: 9 blocks of 228 KB.
    assert nvcc.occupancy("filter_f32_64", nvcc.Usage(80, 24064, 0, 0), 90) == 6 * 128 / 2048


def _nvrtc() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in spec.submodule_search_locations or []] if spec else []
    for folder in folders:
        for found in sorted(folder.glob("*/lib/libnvrtc.so*")):
            for builtins in sorted(found.parent.glob("libnvrtc-builtins.so*")):
                ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)  # looked for by name, where a wheel does not put it
            return ctypes.CDLL(str(found))
    for name in ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _ptx(library: ctypes.CDLL, options: list[str]) -> str:
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    source, encoded = kernel_source().encode(), [option.encode() for option in options]
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None) == 0
    failed = library.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert failed == 0, log.value.decode()
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, ptx)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx.value.decode()


@pytest.mark.parametrize("architecture", [75, 90])
def test_nvrtc_compiles_the_same_source(architecture: int) -> None:
    library = _nvrtc()
    if library is None:
        assert sys.platform != "linux", "NVRTC is not here: pip install nvidia-cuda-nvrtc (extra 'test' has it)"
        pytest.skip("NVRTC has no wheel here: its route was not compiled")
    major, minor = ctypes.c_int(), ctypes.c_int()
    assert library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) == 0
    options = [*NVRTC_OPTIONS, f"--gpu-architecture=compute_{architecture}"]
    key = "\n".join([f"NVRTC {library._name} {major.value}.{minor.value}", *options, kernel_source()])
    text = nvcc.kept(key, lambda: _ptx(library, options))
    for name in kernel_names():
        assert f".entry {name}(" in text
    assert not re.search(r"\.ftz\.|\.approx\.", text)  # subnormal numbers count, quotients and roots are rounded
    assert ("mma.sync.aligned.m16n8k16" in text) == (architecture >= 80)


def test_nothing_of_one_architecture_outside_the_wrappers() -> None:
    for path in kernel_folder().glob("*.cuh"):
        text = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
        if path.name not in ("mma.cuh", "copy.cuh"):
            assert not re.search(r"\basm\b", text), path.name
            assert "__CUDA_ARCH__" not in text, path.name
        assert "#include <" not in text, path.name
