"""What a fit did: counts of everything that was kept or dropped, and the seconds of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class FitReport(Mapping[str, Any]):
    """Counts and seconds of a fit, like a dict: ``report["patches"]``, ``report["seconds"]["associate"]``.

    Counts: images, skipped, patches, associated (patches that joined a channel of another image),
    channels_formed, channels_too_short, channels_spread_out (what the two filters took), channels_living,
    members, members_kept, nominal, threshold_images, copies (images with the same content as another),
    covered_places (of the grid, with a nominal patch in any image); unexplained: the median share of a training image's
    variance that the other images' nominal patches leave, or None. Lists: seed_images, skipped_names; copied_names and
    near_copies, of pairs of names; above_threshold, the names of the scored training images above the threshold, the
    highest score first; warnings, sentences that say why the model may be useless. With threshold_rule="evidence" also
    anomalous_share (estimate, low, high, level: of the training images) and expected_false_alarms, the share of good
    new images that will exceed the threshold. Seconds are wall clock, one entry for each stage in the order of the
    stages; a loaded model's report has none, since only what was fitted is saved, not how long it took.
    """

    def __init__(self, counts: Mapping[str, Any] | None = None) -> None:
        self.counts: dict[str, Any] = dict(counts or {})
        self.seconds: dict[str, float] = {}

    def __getitem__(self, name: str) -> Any:
        return self.seconds if name == "seconds" else self.counts[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.counts
        yield "seconds"

    def __len__(self) -> int:
        return len(self.counts) + 1

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the block's wall-clock seconds to the stage's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def as_dict(self) -> dict[str, Any]:
        """JSON-able copy."""
        return {**self.counts, "seconds": dict(self.seconds)}

    def __repr__(self) -> str:
        rows = [(name, _number(value)) for name, value in self.counts.items() if name != "warnings"]
        rows += [(f"{name} (s)", f"{value:.2f}") for name, value in self.seconds.items()]
        if not rows:
            return "FitReport(empty)"
        wide = max(len(name) for name, _ in rows)
        warnings = [f"  warning: {text}" for text in self.counts.get("warnings", ())]
        return "\n".join(["FitReport", *(f"  {name:<{wide}}  {value}" for name, value in rows), *warnings])


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
