"""CUDA GPUs as devices of the GPU engine (`inreach_fast.kernels.gpu`).

driver_errors.py  what a driver answers, as the package's own errors
probe.py          is there a GPU? asked of the driver, without a context
source.py         the kernels as nvcc compiled them
gpu.py           what is asked of a GPU, and a `Device` on one of its streams
extension.py      GPUs through the compiled extension `inreach_fast._cuda`
cupy_gpu.py      GPUs through CuPy
nvrtc.py          the kernels as NVRTC compiles them for those, at first use
memory.py         memory from torch's or CuPy's allocator, so that nobody hoards a GPU
interop.py        arrays of others (DLPack, torch, CuPy) in and out without a copy, on their stream
opening.py        the device behind a backend's name
"""
