"""As much of CuPy as `CupyGpu` asks for, over the host executor: `install` puts it where ``import cupy`` finds it."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from .gpus import HostGpu


class CUDARuntimeError(RuntimeError):
    """Of cupy_backends: carries ``status``."""

    __module__ = "cupy_backends.cuda.api.runtime"

    def __init__(self, status: int) -> None:
        super().__init__(f"FAKE_ERROR_{status}")
        self.status = status


class OutOfMemoryError(RuntimeError):
    """Of CuPy's allocator."""

    __module__ = "cupy.cuda.memory"


class NVRTCError(RuntimeError):
    """Of cupy_backends."""

    __module__ = "cupy_backends.cuda.libs.nvrtc"


class _Device:
    def __init__(self, ordinal: int) -> None:
        self.id = ordinal

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def install(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The stub as ``cupy``; for the test are its ``GPU``, ``compiled`` (source and options), ``modules`` (what was
    loaded), ``architectures`` (that its NVRTC knows), ``fails``, ``stream`` (the current one) and ``allocated_on`` (the
    one that was current, for each piece of memory)."""
    gpu = HostGpu()
    state = SimpleNamespace(
        gpu=gpu, compiled=[], modules=[], architectures=(80, 90), destroyed=0, fails={}, memory_full=False, stream=0,
        allocated_on=[],
    )  # fmt: skip

    class Stream:
        def __init__(self, handle: int) -> None:
            self.ptr = handle

        def __enter__(self) -> Stream:
            self.before, state.stream = state.stream, self.ptr
            return self

        def __exit__(self, *_: object) -> None:
            state.stream = self.before

    def memcpy(to: int, source: int, nbytes: int, kind: int, stream: int) -> None:
        if "memcpyAsync" in state.fails:
            raise CUDARuntimeError(state.fails["memcpyAsync"])
        assert kind in (1, 2)
        ctypes.memmove(to, source, nbytes)

    def alloc(nbytes: int) -> SimpleNamespace:
        if state.memory_full:
            raise OutOfMemoryError("Out of memory allocating 1 bytes")
        state.allocated_on.append(state.stream)
        memory = gpu._host.empty(nbytes, np.uint8)
        return SimpleNamespace(ptr=memory.address, memory=memory)

    class Nvrtc:
        """Of the program it keeps source and options; what it makes of them nobody looks into."""

        def getVersion(self) -> tuple[int, int]:
            if "load nvrtc" in state.fails:
                raise RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: no such file")
            return 13, 0

        def getSupportedArchs(self) -> tuple[int, ...]:
            return state.architectures

        def createProgram(self, source: str, name: str, headers: Any, names: Any) -> int:
            state.source = source
            return 1

        def compileProgram(self, program: int, options: tuple[str, ...]) -> None:
            state.compiled.append((state.source, options))
            if "compile" in state.fails:
                raise NVRTCError("NVRTC_ERROR_COMPILATION (6)")

        def getCUBIN(self, program: int) -> bytes:
            return b"cubin"

        def getPTX(self, program: int) -> bytes:
            return b"ptx"

        def getProgramLog(self, program: int) -> str:
            return "kernels.cu(1): warning: such\nkernels.cu(2): error: no such thing\n"

        def destroyProgram(self, program: int) -> None:
            state.destroyed += 1

    class Module:
        def load(self, code: bytes) -> None:
            if "load" in state.fails:
                raise CUDARuntimeError(state.fails["load"])
            state.modules.append(code)

        def get_function(self, name: str) -> Any:
            def call(grid: Any, block: Any, arguments: Any) -> None:
                if "launch" in state.fails:
                    raise CUDARuntimeError(state.fails["launch"])
                assert all(isinstance(a, np.generic) for a in arguments)
                pointers = [int(a) if isinstance(a, np.uint64) and _is_pointer(name, i) else a
                            for i, a in enumerate(arguments)]  # fmt: skip
                gpu.launch(name, grid, block[0], pointers, state.stream)

            return call

    def _is_pointer(name: str, place: int) -> bool:
        if name not in kinds:
            message = ctypes.create_string_buffer(512)
            one, warp = ((ctypes.c_uint * 3)(n, 1, 1) for n in (1, 32))
            gpu._host._library.host_launch(name.encode(), one, warp, None, b"?", 0, message, 512)
            kinds[name] = message.value.decode().split(" takes ")[1].split(",")[0]
        return kinds[name][place] == "p"

    kinds: dict[str, str] = {}
    cupy: Any = ModuleType("cupy")
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    cupy.cuda = SimpleNamespace(
        Device=_Device,
        ExternalStream=Stream,
        Stream=SimpleNamespace(null=Stream(0)),
        alloc=alloc,
        nvrtc=Nvrtc(),
        function=SimpleNamespace(Module=Module),
        runtime=SimpleNamespace(
            getDeviceProperties=lambda ordinal: {"name": b"stub", "major": 9, "minor": 0, "multiProcessorCount": 2},
            memGetInfo=lambda: (1 << 30, 1 << 30),
            memcpyAsync=memcpy,
            streamSynchronize=lambda stream: None,
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return state
