"""`Inspector`: a fitted model kept ready, used by any number of threads, with its latencies and a log."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..array_types import FloatArray, UInt8Array
from ..errors import DataError, InReachError, ParameterError
from ..estimator import InReaCh
from ..images.reading import as_image
from ..predict.bounded_search import Limits
from ..predict.prediction import Prediction, named_features
from .events import log_event
from .histogram import LatencyHistogram

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class Inspection:
    """One inspected image.

    Attributes:
        name: of the image.
        threshold: above which the image is anomalous. seconds: that reading and scoring took.
        prediction: `Prediction`; None if the image could not be inspected. error: why not, else None.
        anomaly_map: float32 (H, W) in the frame of the image, NaN outside the crop; image: uint8 (H, W, 3), as read.
            Both None unless they were asked for.
        bounded: whether searches may end early, so that `row` has the score's bounds.
    """

    name: str
    threshold: float
    seconds: float
    prediction: Prediction | None = None
    error: Exception | None = None
    anomaly_map: FloatArray | None = field(default=None, repr=False)
    image: UInt8Array | None = field(default=None, repr=False)
    bounded: bool = False

    @property
    def score(self) -> float:
        """The image's score; raises the image's error if there is none."""
        return float(self._found.score)

    @property
    def is_anomalous(self) -> bool:
        """Whether the score exceeds the threshold; raises the image's error if there is none."""
        return self.score > self.threshold

    def row(self) -> dict[str, Any]:
        """The fields that `inreach predict` prints, JSON-able: file, score, threshold, is_anomalous, seconds; feedback,
        if the model has any; with a threshold or a budget score_lower, score_upper, certain, complete; runtime, if it
        is another than the fit's; of a bad image file, error, kind.
        """
        if self.prediction is None:
            return {"file": self.name, "error": str(self.error) or "failed", "kind": type(self.error).__name__}
        row: dict[str, Any] = {
            "file": self.name,
            "score": self.score,
            "threshold": self.threshold,
            "is_anomalous": self.is_anomalous,
            "seconds": round(self.seconds, 4),
        }
        if self.prediction.feedback is not None:
            row["feedback"] = self.prediction.due_to
        if self.bounded:
            low, high = float(self.prediction.score_lower), float(self.prediction.score_upper)
            certain = low > self.threshold or high <= self.threshold
            complete = bool(self.prediction.complete)
            row |= {"score_lower": low, "score_upper": high, "certain": certain, "complete": complete}
        if self.prediction.runtime is not None:
            row["runtime"] = self.prediction.runtime
        return row

    @property
    def _found(self) -> Prediction:
        if self.prediction is None:
            raise self.error or DataError(f"{self.name}: was not inspected; give another image")
        return self.prediction


class Inspector:
    """Inspects images with a fitted model that is kept ready: for a service, a camera's callback, a loop.

    It may be called from any number of threads, as long as the model is not fitted or grown meanwhile. Results are
    `InReaCh.predict`'s, to the bit. Each inspection is counted, and logged as one line of JSON, by `logging`, in the
    log "inreach_fast.line" (level INFO; WARNING for an image that cannot be inspected).

    >>> with Inspector("part.inreach") as inspector:
    ...     inspection = inspector.inspect("new.png")
    ...     print(inspection.score, inspection.is_anomalous, inspector.latency.summary())

    Args:
        model: a fitted `InReaCh`, or the path of a saved one.
        threshold, budget_ms: as in `InReaCh.predict`: searches may end before every patch is proven.
        threads: as in `InReaCh.prepare`.
        warm: load the network, prepare the search and inspect one grey image now, so that no image waits for it;
            otherwise `warm_up` does it, or the first image.

    Attributes:
        model: the `InReaCh`. name: of its file, or "model"; for the log.
        latency: `LatencyHistogram` of the seconds that images took, reading included; bad images are not in it.
        ready: whether `warm_up` has been done and the inspector is not closed.

    Raises:
        As `InReaCh.load` and `InReaCh.prepare`; ParameterError: a threshold or budget that `predict` refuses.
    """

    def __init__(
        self,
        model: InReaCh | str | os.PathLike[str],
        *,
        threshold: float | None = None,
        budget_ms: float | None = None,
        threads: int | str | None = None,
        warm: bool = True,
    ) -> None:
        self.name = "model"
        if isinstance(model, (str, os.PathLike)):
            self.name, model = Path(model).name, InReaCh.load(model)
        self.model: InReaCh = model
        self.latency = LatencyHistogram()
        self.ready = False
        self._threshold, self._budget, self._threads = threshold, budget_ms, threads
        self._bounded = Limits.of(threshold, budget_ms) != Limits()
        self._verdicts: Counter[bool] = Counter()
        self._errors: Counter[str] = Counter()
        self._running, self._closed = 0, False
        self._changed = threading.Condition()
        if warm:
            self.warm_up()

    @property
    def threshold(self) -> float:
        """The score above which an image is anomalous: the one given, or the model's, which may change."""
        return float(self.model.threshold_ if self._threshold is None else self._threshold)

    def warm_up(self) -> Self:
        """Loads the network, prepares the search and inspects one grey image; returns self.

        Raises:
            As `InReaCh.prepare`; ParameterError: closed, or a budget that the model's score does not allow.
        """
        begun = time.perf_counter()
        with self._at_work():
            self.model.prepare(self._threads)
            grey = np.full((*self.model.geometry.own_size, 3), 128, np.uint8)
            self.model.predict(grey, threshold=self._threshold, budget_ms=self._budget)
            with self._changed:
                self.ready = not self._closed
        log_event("ready", model=self.name, threshold=self.threshold, seconds=round(time.perf_counter() - begun, 4))
        return self

    def inspect(self, image: Any, name: str | None = None, *, with_map: bool = False) -> Inspection:
        """Reads and scores one image.

        Args:
            image: one image, in any form that `InReaCh.predict` takes.
            name: for results, errors and the log; None: the path, or "the image".
            with_map: search every patch, whatever the threshold or budget, and keep the map and the image.

        Raises:
            ImageError, NonFiniteError and the other errors of `InReaCh.predict`; ParameterError: closed.
        """
        inspection = self.attempt(image, name, with_map=with_map)
        if inspection.error is not None:
            raise inspection.error
        return inspection

    def attempt(self, image: Any, name: str | None = None, *, with_map: bool = False) -> Inspection:
        """As `inspect`, but an image that cannot be inspected is a result with an ``error``: ImageError,
        NonFiniteError, MemoryError. Errors that are not the image's own are raised.
        """
        name = _path(image) or "the image" if name is None else name
        with self._at_work():
            begun = time.perf_counter()
            try:
                inspection = self._inspected(image, name, with_map, begun)
            except Exception as error:
                failed = Inspection(name, self.threshold, time.perf_counter() - begun, error=error)
                with self._changed:
                    self._errors[type(error).__name__] += 1
                log_event("failed", level=logging.WARNING, **failed.row())
                if is_of_image(error):
                    return failed
                raise
            self.latency.record(inspection.seconds)
            with self._changed:
                self._verdicts[inspection.is_anomalous] += 1
            log_event("inspected", **inspection.row())
            return inspection

    def inspect_many(
        self, images: Iterable[Any], names: Iterable[str] | None = None, *, workers: int = 2, with_map: bool = False
    ) -> Iterator[Inspection]:
        """Inspects images as they come and yields the results in their order; a bad image does not end it.

        Args:
            images: single images, possibly without end. They are iterated in the caller's thread, at most ``workers``
                ahead of the results.
            names: of the images, as many; None: paths, or "image 0", "image 1", ...
            workers: images that are read and scored at the same time, at least 1.
            with_map: as in `inspect`.

        Yields:
            `Inspection`. Its ``error`` says why an image could not be inspected (ImageError, NonFiniteError).

        Raises:
            ParameterError: closed, or ``workers`` below 1. Errors that are not an image's own, in its turn.
        """
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ParameterError(f"workers: expected a whole number of at least 1, got {workers!r}")
        numbered = ((_path(image) or f"image {i}", image) for i, image in enumerate(images))
        named: Iterable[tuple[str, Any]] = numbered if names is None else zip(names, images, strict=True)
        waiting: deque[Future[Inspection]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="inreach-inspect") as pool:
            try:
                for name, image in named:
                    waiting.append(pool.submit(self.attempt, image, name, with_map=with_map))
                    if len(waiting) > workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def counts(self) -> dict[str, Any]:
        """Images so far: {"inspected", "anomalous", "errors": {kind of error: number}}."""
        with self._changed:
            inspected, anomalous, errors = self._verdicts.total(), self._verdicts[True], dict(self._errors)
        return {"inspected": inspected, "anomalous": anomalous, "errors": errors}

    def close(self) -> None:
        """Waits for the images in work, logs counts and latencies, and refuses further images."""
        with self._changed:
            if self._closed:
                return
            self._closed, self.ready = True, False
            while self._running:
                self._changed.wait()
        log_event("closed", model=self.name, **self.counts(), latency=self.latency.summary())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise ParameterError("Inspector: closed; make a new one")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _inspected(self, image: Any, name: str, with_map: bool, begun: float) -> Inspection:
        model = self.model
        pixels = as_image(image, name, model.pixel_rule)
        limits: dict[str, float | None] = {}
        if not with_map:
            budget = self._budget
            if budget is not None:  # reading counts
                budget = max(budget - 1e3 * (time.perf_counter() - begun), 1e-3)
            limits = {"threshold": self._threshold, "budget_ms": budget}
        threshold = self.threshold
        # An array of few rows could be one with its channels first; a picture could not.
        certain: Any = pixels if len(pixels) > 4 else Image.fromarray(pixels)
        with named_features(name):
            prediction = model.predict(certain, **limits)
        in_frame = model.map_to_original(prediction.anomaly_map, pixels.shape[:2]) if with_map else None
        return Inspection(
            name,
            threshold,
            time.perf_counter() - begun,
            prediction,
            anomaly_map=in_frame,
            image=pixels if with_map else None,
            bounded=self._bounded,
        )


def is_of_image(error: BaseException) -> bool:
    """Whether an error says that one image cannot be used, so that others may."""
    return isinstance(error, DataError) or (isinstance(error, MemoryError) and not isinstance(error, InReachError))


def _path(image: Any) -> str | None:
    return str(os.fspath(image)) if isinstance(image, (str, os.PathLike)) else None
