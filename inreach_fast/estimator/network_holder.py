"""The estimator's network: given by the caller, or loaded on first use, and checked against the fitted one."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BackboneMismatchError, ParameterError
from ..parameters import Parameters

if TYPE_CHECKING:
    from ..backbones import Backbone


def as_backbone(value: Any) -> Backbone:
    """A caller's network. Raises ParameterError if it is not a `Backbone`."""
    if not (hasattr(value, "extract") and hasattr(value, "fingerprint")):
        raise ParameterError(f"backbone: expected a name or a Backbone, got {type(value).__name__}")
    backbone: Backbone = value
    return backbone


class NetworkHolder:
    """Holds a `Backbone`, or what it is loaded from."""

    def __init__(self, backbone: Backbone | None = None) -> None:
        self._backbone = backbone
        self._spec: dict[str, Any] | None = None  # of a loaded model: `Backbone.spec` of its network
        self._fingerprint: str | None = None  # that the network must have; None: any
        self._folder: Path | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_json(
        cls, saved: Mapping[str, Any], folder: Path, backbone: Backbone | str | None, weights: Any, name: str
    ) -> NetworkHolder:
        """The network of a saved model, from what `to_json` returned; ``backbone``, ``weights``: as in `InReaCh.load`.

        ``folder``: of the model file, where weights are looked for as well. ``name``: of the fitted network.
        """
        spec = dict(saved["spec"])
        if isinstance(backbone, str):
            plain = {"weights": "official", "weights_sha256": None, "seed": 0}
            spec = {**plain, **spec, "backbone": backbone, "rebuildable": True}
        if weights is not None:
            spec["weights"] = os.fspath(weights)
        holder = cls(None if isinstance(backbone, str) else backbone)
        holder._spec, holder._fingerprint, holder._folder = spec, str(saved["fingerprint"]), folder
        if holder._backbone is not None:
            holder._check(holder._backbone, name)
        return holder

    def to_json(self, parameters: Parameters) -> dict[str, Any]:
        """What a model file keeps of the network."""
        fingerprint = self._fingerprint or self.get(parameters).fingerprint
        spec = self._spec or self.get(parameters).spec
        return {"name": parameters.backbone, "fingerprint": fingerprint, "spec": spec}

    def described(self, parameters: Parameters, *, needed: bool) -> dict[str, Any] | None:
        """As `to_json`; None if the network is not ``needed`` and follows from the parameters alone."""
        return self.to_json(parameters) if needed or self._backbone is not None or self._spec is not None else None

    def copy(self) -> NetworkHolder:
        """A holder of the same network, of its own."""
        other = NetworkHolder(self._backbone)
        other._spec, other._fingerprint, other._folder = self._spec, self._fingerprint, self._folder
        return other

    def release(self) -> None:
        """Before a loaded model is fitted anew: a network that was not loaded yet may be another one."""
        if self._backbone is None:
            self._spec = self._fingerprint = None

    def get(self, parameters: Parameters) -> Backbone:
        """The network, loaded on first use; errors as in `InReaCh.prepare`."""
        with self._lock:
            if self._backbone is None:
                self._backbone = self._loaded(parameters)
            return self._backbone

    def _loaded(self, p: Parameters) -> Backbone:
        from ..backbones import backbone_from_spec, load_backbone

        if self._spec is not None:
            backbone = backbone_from_spec(self._spec, device=p.device, folder=self._folder)
            self._check(backbone, p.backbone)
            return backbone
        return load_backbone(
            p.backbone,
            weights=p.weights,
            depth=p.depth,
            device=p.device,
            normalisation=p.normalisation,
            seed=p.random_state,
        )

    def _check(self, backbone: Backbone, name: str) -> None:
        if self._fingerprint is not None and backbone.fingerprint != self._fingerprint:
            raise BackboneMismatchError(
                f"backbone: the model was fitted with {name!r} of fingerprint {self._fingerprint[:12]}, this is "
                f"{backbone.name!r} of {backbone.fingerprint[:12]} (other weights, levels or normalisation); give "
                "the same backbone, or fit again"
            )
