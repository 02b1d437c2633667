"""Backends that run on the CPU (the torch one on any torch device)."""
