"""Scores of the training images themselves, each against the others' nominal patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..array_types import FloatArray, UInt8Array
from ..errors import ParameterError
from ..fit.model_building import leave_one_out_score
from ..images.alignment import rotate
from ..images.source import open_images
from ..method.descriptors import check_descriptors
from ..progress import Progress, no_progress
from .descriptor_references import referenced
from .network import WithNetwork


class TrainingScores(WithNetwork):
    """The part of `InReaCh` that scores its training images."""

    def training_scores(self, images: Any = None, *, progress: Progress | None = None) -> FloatArray:
        """Scores each training image against the nominal patches of the *other* images (leave-one-image-out).

        Args:
            images: the training images in the order of the fit (after `fit_descriptors`: the (N, P, D)
                descriptors). None: the network inputs that the model keeps (the descriptors, as long as the array
                that `fit_descriptors` was given is there); a model saved with ``final=True`` has none.
            progress: called as progress("score", done, total).

        Returns:
            float32 (N,), one image score a training image (those that ``skip_bad`` passed over have none).

        Raises:
            NotFittedError, ParameterError (other images than the fit's), ImageError.
        """
        self._check_fitted()
        progress = progress or no_progress
        # Of fewer patches (compressed, say) the scores are higher than the fit's.
        whole = self.nominal_.compression is None and self.nominal_ is self._grown_nominal
        if images is None and whole and len(self.threshold_images_) == self.n_images_:
            return np.array(self.threshold_scores_, dtype=np.float32)
        out = np.empty(self.n_images_, dtype=np.float32)
        rows_of = self._training_rows(images)
        for i in range(self.n_images_):
            out[i] = leave_one_out_score(self._get_scorer(), rows_of(i), i, self.grid_, self.parameters)
            progress("score", i + 1, self.n_images_)
        return out

    def _training_rows(self, images: Any) -> Callable[[int], FloatArray]:
        """The descriptors of training image i, from what the caller gives or from what is at hand."""
        if self._from_descriptors:
            if images is not None:
                array = check_descriptors(images, "images")
                self._check_shape(array)
                if len(array) != self.n_images_:
                    raise ParameterError(f"images: the fit had {self.n_images_} images, these are {len(array)}")
                return lambda i: array[i]
            references = self._described or [None]

            def at_hand(i: int) -> FloatArray:
                rows = referenced(references[i])
                if rows is None:
                    raise ParameterError(
                        "images: give the descriptors that fit_descriptors was given; they are not kept"
                    )
                return rows

            at_hand(0)
            return at_hand
        read = self._training_inputs(images)
        alignment = self._alignment

        def described(i: int) -> FloatArray:
            network_input = read(i)
            if alignment is not None:
                network_input = rotate(network_input, int(alignment.angles[i]))
            return self._described_rows(np.array(network_input[None]))[0]

        return described

    def _training_inputs(self, images: Any) -> Callable[[int], UInt8Array]:
        """The network input of training image i."""
        state = self._growth
        if images is None:
            if state is None or state.inputs is None:
                raise ParameterError(
                    "images: a model that was compressed or saved with final=True keeps no training images; give them"
                )
            inputs = state.inputs
            return lambda i: np.array(inputs[i])
        source = open_images(images)
        if len(source) == self.n_images_:
            used = list(range(self.n_images_))
        else:
            place = {name: i for i, name in enumerate(source.names)}
            if not all(name in place for name in self.image_names_):
                raise ParameterError(
                    f"images: the fit had {self.n_images_} images, these are {len(source)}; give the same ones"
                )
            used = [place[name] for name in self.image_names_]
        return lambda i: self.geometry.apply(source.load(used[i]))
