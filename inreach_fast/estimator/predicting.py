"""Predictions of images, batches, streams and descriptors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..array_types import FloatArray
from ..errors import NonFiniteError, ParameterError
from ..images.reading import as_image, is_single_image
from ..images.source import open_images
from ..method.descriptors import bad_features, check_descriptors
from ..predict.prediction import Prediction, stacked
from ..predict.stream import Ready, in_stream, named_features
from .image_prediction import ImagePrediction

if TYPE_CHECKING:
    from typing_extensions import Self


class Predicting(ImagePrediction):
    """The part of `InReaCh` that predicts."""

    def predict(self, images: Any, *, threshold: float | None = None, budget_ms: float | None = None) -> Prediction:
        """Scores one image or a batch (paper, section 3.4).

        With a ``threshold`` or a budget the search ends before every patch is proven (docs/serving.md); without
        either it is whole.

        Args:
            images: one image (path, uint8 (H, W, 3) or (H, W) array, PIL image, tensor (C, H, W)), or a batch
                (list of them, array (B, H, W, 3), folder, Dataset). An image's result is the same, to the
                bit, alone and in any batch.
            threshold: decide against this score instead of ``threshold_``, and stop as soon as the verdict is
                certain. It is the whole search's verdict, always.
            budget_ms: milliseconds that each image may take from the call on (in a batch, from when its turn
                comes), reading and backbone included. What is left for the search is spent on the patches that matter
                most; the score comes with certified bounds. Backbone and a first glance, which searches every ninth
                patch, are always done, even where they alone exceed the budget. The first image of a process
                also loads the network and prepares the search: `prepare` does so beforehand.

        Returns:
            `Prediction`, of scalars and one map for one image, of arrays with a leading B for a batch.

        Raises:
            NotFittedError, ImageError, BackboneMismatchError (another backbone, or a model of
                `fit_descriptors`), NonFiniteError (the network's features). ParameterError: a threshold that
                is no finite number, a budget that is not above 0, or a budget with a ``score`` other than
                "nearest" (the others have no bounds; with a threshold they are searched whole).
        """
        begun = time.perf_counter()
        self._check_fitted()
        limits = self._limits(threshold, budget_ms)
        self._check_has_network()
        single = is_single_image(images)
        source = None if single else open_images(images)
        count = 1 if source is None else len(source)
        gpu = self._gpu()
        done: list[Prediction] = []
        step = self.parameters.batch_size if limits.budget is None else 1  # a budget is each image's own
        for start in range(0, count, step):
            begun = time.perf_counter() if start else begun
            numbers = range(start, min(start + step, count))
            inputs = np.empty((len(numbers), *self.parameters.image_size, 3), dtype=np.uint8)
            sizes, turns = [], []
            for k, i in enumerate(numbers):
                ready = self._ready(as_image(images, "images") if source is None else source.load(i))
                sizes.append(ready.size)
                inputs[k] = ready.network_input
                turns.append(ready.degrees)
            on_gpu = None if gpu is None else gpu.scores(inputs)
            rows = self._described_rows(inputs, self._precision) if on_gpu is None else []
            for k, i in enumerate(numbers):
                try:
                    if on_gpu is None:
                        done.append(self._predicted(rows[k], turns[k], sizes[k], limits, begun))
                    else:
                        done.append(self._predicted_on_gpu(next(on_gpu), turns[k], sizes[k], limits))
                except NonFiniteError as error:
                    raise bad_features("the image" if source is None else source.names[i]) from error
        return done[0] if single else stacked(done)

    def predict_stream(
        self, images: Iterable[Any], *, threshold: float | None = None, budget_ms: float | None = None, ahead: int = 2
    ) -> Iterator[Prediction]:
        """Scores images as they come, in their order; each result is `predict`'s, to the bit.

        The next images are read (decoded, resized) in a thread while this one is scored. With ``device="cuda"`` the
        copies, the network and the search of neighbouring images overlap as well.

        Args:
            images: an iterable of single images (as `predict` takes them), endless if need be; or a folder, array or
                Dataset, as `predict` takes them. It is asked for the next image in that thread.
            threshold, budget_ms: as in `predict`; a budget counts from when the image's turn comes.
            ahead: images that may be read before their turn, at least 1.

        Returns:
            An iterator of `Prediction` for single images. Closing it ends the reading.

        Raises:
            At once: NotFittedError, ParameterError, BackboneMismatchError, as `predict`. In an image's turn: its
            ImageError or NonFiniteError, after all before it have come.
        """
        self._check_fitted()
        limits = self._limits(threshold, budget_ms)
        self._check_has_network()
        if isinstance(ahead, bool) or not isinstance(ahead, (int, np.integer)) or ahead < 1:
            raise ParameterError(f"ahead: expected a whole number of at least 1, got {ahead!r}")
        if is_single_image(images):
            raise ParameterError("images: one image is given; predict takes it, and predict_stream takes several")
        gpu = self._gpu()
        source: Iterable[tuple[str, Any]]
        if isinstance(images, (str, os.PathLike)) or hasattr(images, "__getitem__"):
            opened = open_images(images)
            source = ((opened.names[i], opened.load(i)) for i in range(len(opened)))
        else:
            source = ((f"image {i} of the stream", image) for i, image in enumerate(images))

        def read(item: tuple[str, Any]) -> tuple[str, Ready]:
            name, image = item
            return name, self._ready(as_image(image, name))

        def start(item: tuple[str, Ready]) -> tuple[str, Ready, Any]:
            name, ready = item
            if gpu is not None:
                return name, ready, gpu.start(ready.network_input)
            begun = time.perf_counter()
            (rows,) = self._described_rows(np.array(ready.network_input[None]), self._precision)
            with named_features(name):
                return name, ready, self._predicted(rows, ready.degrees, ready.size, limits, begun)

        def collect(item: tuple[str, Ready, Any]) -> Prediction:
            name, ready, started = item
            if gpu is None:
                scored: Prediction = started
                return scored
            with named_features(name):
                return self._predicted_on_gpu(gpu.collect(started), ready.degrees, ready.size, limits)

        in_flight = 0 if gpu is None else gpu.in_flight
        return in_stream(source, read, start, collect, ahead=int(ahead), in_flight=in_flight)

    def prepare(self) -> Self:
        """Loads the network and prepares the search, which the first `predict` would do otherwise; returns self.

        Raises:
            NotFittedError; BackboneError, WeightsError, BackboneMismatchError: the network cannot be had.
        """
        self._check_fitted()
        if not self._from_descriptors:
            _ = self.backbone
        nominal = self.nominal_
        kernels.nearest(nominal.patches[:1], nominal.bank, backend=self.parameters.kernel_backend)
        return self

    def score_descriptors(
        self, x: Any, *, threshold: float | None = None, budget_ms: float | None = None
    ) -> Prediction:
        """Scores descriptors as `predict` scores images.

        Args:
            x: (P, D) for one image or (B, P, D), float32, of the grid and dimension of the fit (position
                channels included, where the fit has them).
            threshold, budget_ms: as in `predict`.

        Raises:
            NotFittedError, ParameterError, MixedSizesError, NonFiniteError.
        """
        begun = time.perf_counter()
        self._check_fitted()
        limits = self._limits(threshold, budget_ms)
        single = np.ndim(x) == 2
        array = check_descriptors(x[None] if isinstance(x, np.ndarray) and single else [x] if single else x)
        self._check_shape(array)
        done = []
        for i, rows in enumerate(array):
            done.append(self._predicted(rows, 0, None, limits, time.perf_counter() if i else begun))
        return done[0] if single else stacked(done)

    def map_to_original(self, values: FloatArray, original_size: tuple[int, int]) -> FloatArray:
        """A map of the network's input, (H, W), in the frame of the picture as it was read.

        Args:
            values: `Prediction.anomaly_map` of one image.
            original_size: (height, width), `Prediction.original_size`.

        Returns:
            float32 of that size; NaN where the crop left the picture uninspected.
        """
        full: FloatArray = self.geometry.map_to_original(values, original_size)
        return full
