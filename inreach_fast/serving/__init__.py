"""Inspecting for a production line: an inspector that stays ready, a folder that is watched, a web service."""

from __future__ import annotations

from .histogram import LatencyHistogram
from .inspector import Inspection, Inspector

__all__ = ["Inspection", "Inspector", "LatencyHistogram"]
