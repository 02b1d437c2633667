"""The GPU engine: which kernels of csrc/cuda/kernels are launched in which order.

arrays.py, rows.py      calls whose arrays, or whose bank's rows, are on a GPU
backends.py, backend.py the backends of several GPUs and of one: banks, memory, retries
calls.py                a whole call, with its answers in one block of memory
search.py, ranked.py    the order of launches for k = 1, and for k > 1
launcher.py             single launches; routes.py: formats and tiles of the filters, constants of the bounds
frame.py                rows in the frame of a search; search_state.py: candidates, running answers, counts
describe.py, spread.py, smooth.py   the launches of the other operations
device.py               `Device`: one stream of a GPU, with memory, copies and launches (`DeviceArray`: its memory)
devices/                `Gpu`, a GPU with the kernels loaded, behind each `Device`: the extension, CuPy; errors
"""
