"""Backends that run on the CPU: one class each in native.py, numba.py and torch.py."""
