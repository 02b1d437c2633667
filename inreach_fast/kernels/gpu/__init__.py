"""The GPU engine: which kernels (csrc/cuda/kernels) are launched in which order, over any `Device`.

    device.py     what a device must offer: memory, copies, launches
    frame.py      rows in the frame of a search, and in leading directions
    routes.py     formats and tiles of the filters, and the constants of their bounds
    candidates.py the list between filter and decision
    answers.py    bank rows on the device, running answers, counts
    launcher.py   the launches that searches are made of
    search.py     nearest in one direction, back, and in both: passes over a bank
    ranked.py     the k nearest
    calls.py      whole calls, answers in one block
    describe.py   patch descriptors
    spread.py     spread of channels
    smooth.py     smoothed map and its maximum

Devices are CUDA through the compiled extension, CUDA through CuPy, and in the tests the host executor, which runs
the kernels' own source on the CPU.
"""
