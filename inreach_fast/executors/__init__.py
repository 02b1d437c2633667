"""Where the work of a fit is done: in this process, in several on this machine, or on a cluster.

An executor takes a spec (what a worker needs, sent to each once) and tasks, and gives the results in order; they are
the same whoever computes them. See docs/cluster.md.
"""

from __future__ import annotations

from .choosing import make_executor
from .local import LocalExecutor
from .processes import ProcessExecutor
from .protocol import Executor, Spec
from .ray_cluster import RayExecutor

__all__ = ["Executor", "LocalExecutor", "ProcessExecutor", "RayExecutor", "Spec", "make_executor"]
