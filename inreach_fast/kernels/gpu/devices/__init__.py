"""GPUs, and all that is outside of the engine: driver, allocators, callers' arrays.

gpu.py            `Gpu`, a GPU with the kernels loaded, and `Memory`, an allocator
opening.py        GPUs by a backend's name, opened once; the extension `inreach_fast._cuda` among them
cupy_gpu.py       GPUs through CuPy; nvrtc.py: the CUDA source (installed in cuda_source/), compiled
memory.py         the allocators of torch and CuPy; limit.py: the limit on all of them
interop.py        callers' arrays (torch, CuPy, DLPack) in and out without a copy, on their stream
probe.py          whether there is a GPU; driver_errors.py: the driver's errors as the package's own
"""
