"""Compiled at first use by numba, where no extension is."""
