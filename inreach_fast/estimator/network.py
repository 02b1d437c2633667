"""The estimator's network: loaded on first use, held to the one of the fit, and from an image to descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..array_types import FloatArray, UInt8Array
from ..errors import BackboneMismatchError, ParameterError
from ..images.preprocess import Geometry
from ..method.descriptors import append_positions, position_channels
from .state import State

if TYPE_CHECKING:
    from ..backbones import Backbone


class WithNetwork(State):
    """The part of `InReaCh` that has the network."""

    @property
    def geometry(self) -> Geometry:
        """How an image becomes the network's input."""
        p = self.parameters
        if p.resize is None:
            return Geometry(resize=p.image_size, crop=None)
        return Geometry(resize=p.resize, crop=p.image_size)

    @property
    def backbone(self) -> Backbone:
        """The network, loaded on first use.

        Raises:
            BackboneMismatchError: not the one that the model was fitted with. BackboneError, WeightsError: it
            cannot be had.
        """
        with self._lock:
            if self._backbone is None:
                from ..backbones import backbone_from_spec, load_backbone

                p = self.parameters
                if self._spec is not None:
                    backbone = backbone_from_spec(self._spec, device=p.device, folder=self._folder)
                    self._check_backbone(backbone)
                else:
                    backbone = load_backbone(
                        p.backbone,
                        weights=p.weights,
                        depth=p.depth,
                        device=p.device,
                        normalisation=p.normalisation,
                        seed=p.random_state,
                    )
                self._backbone = backbone
            return self._backbone

    def _check_backbone(self, backbone: Backbone) -> None:
        if self._fingerprint is not None and backbone.fingerprint != self._fingerprint:
            raise BackboneMismatchError(
                f"backbone: the model was fitted with {self.parameters.backbone!r} of fingerprint "
                f"{self._fingerprint[:12]}, this is {backbone.name!r} of {backbone.fingerprint[:12]} (other "
                "weights, levels or normalisation); give the same backbone, or fit again"
            )

    def _described_rows(self, inputs: UInt8Array, precision: str = "float32") -> list[FloatArray]:
        """Descriptors of network inputs, with position channels where the fit has them: B times (P, D)."""
        channels = position_channels(self.grid_, self.parameters.position_weight) if self.positions_ else None
        return [append_positions(rows, channels) for rows in self._describer(inputs, precision)]


def as_backbone(value: Any) -> Backbone:
    """What a caller gave as a network.

    Raises:
        ParameterError: it is none.
    """
    if not (hasattr(value, "extract") and hasattr(value, "fingerprint")):
        raise ParameterError(f"backbone: expected a name or a Backbone, got {type(value).__name__}")
    backbone: Backbone = value
    return backbone
