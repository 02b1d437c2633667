"""Where the images of a fit are processed: in this process, in several on this machine, or on a Ray cluster.

An executor takes a spec (what each worker needs, sent once) and tasks, and yields the results in order; the results do
not depend on the executor. See docs/cluster.md.
"""

from __future__ import annotations

from .choosing import make_executor
from .processes import ProcessExecutor
from .protocol import Executor, LocalExecutor, Spec
from .ray_cluster import RayExecutor

__all__ = ["Executor", "LocalExecutor", "ProcessExecutor", "RayExecutor", "Spec", "make_executor"]
