"""Stand-ins for what a GPU brings, so that all but the GPU itself is run in the tests.

libcuda.cpp   a driver whose GPUs are the host executor (tests/cuda_host): the extension `inreach_fast._cuda` runs
              on it as it would on a GPU, and it fails where it is told to
build.py      builds it, and the extension
gpus.py      the host executor as a `GPU`, without an extension; one that watches the order of streams
cupy_stub.py  as much of CuPy as `CupyGpu` asks for
"""
