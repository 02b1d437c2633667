"""The estimator's network: given by the caller, or loaded on first use, and checked against the fitted one."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..array_types import UInt8Array
from ..errors import BackboneError, BackboneMismatchError, ParameterError, RuntimeUnavailableError
from ..parameters import INT8, UNFOLDED, Parameters

if TYPE_CHECKING:
    from ..backbones import Backbone

_log = logging.getLogger("inreach_fast")


def as_backbone(value: Any) -> Backbone:
    """A caller's network. Raises ParameterError if it is not a `Backbone`."""
    if not (hasattr(value, "extract") and hasattr(value, "fingerprint")):
        raise ParameterError(f"backbone: expected a name or a Backbone, got {type(value).__name__}")
    backbone: Backbone = value
    return backbone


def _quantizable(source: Backbone) -> Backbone:
    if not hasattr(source, "quantized"):
        raise ParameterError(
            f"quantization: {type(source).__name__} is no Backbone and cannot be quantized; leave quantization out"
        )
    return source


def _with_ranges(given: Backbone, ranges: Any, name: str) -> Backbone:
    """The caller's network with a saved model's ranges."""
    try:
        return _quantizable(given).with_ranges(ranges)
    except (ParameterError, BackboneError) as error:
        raise BackboneMismatchError(
            f"backbone: the model was fitted with {name!r} in 8-bit integers, which this cannot be ({error}); give the "
            "backbone of the fit, as it was before with_runtime"
        ) from error


def _by_runtime(source: Backbone, name: str, size: tuple[int, int], fitted: str | None) -> Backbone:
    """The network by the runtime ``name``, whose relation to the fit's is said."""
    if fitted not in (None, name):
        _log.warning(
            "backbone_runtime: the network is computed by %s, and the model was fitted with %s: scores differ; "
            "inreach_fast.disagreement and `inreach info --compare` measure by how much",
            name, fitted,
        )  # fmt: skip
    try:
        return source.with_runtime(name, size)
    except RuntimeUnavailableError as error:
        if name != fitted:
            raise
        raise RuntimeUnavailableError(
            f"{error} (backbone_runtime= of InReaCh.load, --backbone-runtime): the model was fitted with {name}, and "
            "another runtime's scores differ in their last digits"
        ) from error


class NetworkHolder:
    """Holds a `Backbone`, or what it is loaded from."""

    def __init__(self, backbone: Backbone | None = None) -> None:
        self._given = backbone
        self._quantized: Backbone | None = None  # made of the one that was given or loaded
        self._made: dict[str, Backbone] = {}  # by the name of the runtime
        self._chosen: str | None = None  # the runtime that "auto" stands for where nothing is fitted
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
        if holder._given is not None:
            if INT8 in spec and INT8 not in getattr(holder._given, "spec", {}):
                holder._quantized = _with_ranges(holder._given, spec[INT8], name)
            holder._check(holder._quantized or holder._given, name)
        return holder

    def to_json(self, parameters: Parameters, fitted: str | None) -> dict[str, Any]:
        """What a model file keeps of the network; ``fitted`` as in `get`."""
        # A network that was given is described without a runtime, which would be made first.
        plain = self._quantized or self._given
        fingerprint = self._fingerprint or (plain or self.get(parameters, fitted)).fingerprint
        spec = self._spec or (plain or self.get(parameters, fitted)).spec
        return {"name": parameters.backbone, "fingerprint": fingerprint, "spec": spec}

    def described(self, parameters: Parameters, fitted: str | None, *, needed: bool) -> dict[str, Any] | None:
        """As `to_json`; None if the network is not ``needed`` and follows from the parameters alone."""
        return self.to_json(parameters, fitted) if needed or self._given or self._spec else None

    def copy(self) -> NetworkHolder:
        """A holder of the same network, of its own; what was loaded or exported is not made again."""
        other = NetworkHolder(self._given)
        with self._lock:
            other._made, other._chosen = dict(self._made), self._chosen
            other._quantized = self._quantized
        other._spec, other._fingerprint, other._folder = self._spec, self._fingerprint, self._folder
        return other

    def version(self, runtime: str) -> str:
        """The version of the package that computes the runtime here."""
        from ..backbones import version_of

        return version_of(runtime)

    def release(self, parameters: Parameters) -> None:
        """Before a loaded model is fitted anew: a network that was not loaded yet may be another one."""
        if self._quantized is not None and parameters.quantization is None:
            self._quantized, self._chosen, self._made = None, None, {}
            self._spec = self._fingerprint = None
        # The parameters alone do not give a network again that the caller quantized.
        if self._given is None and not self._made and INT8 not in (self._spec or {}):
            self._spec = self._fingerprint = None

    def quantize(self, parameters: Parameters, images: UInt8Array) -> None:
        """From now on the network with convolutions that multiply 8-bit integers; see `Backbone.quantized`."""
        with self._lock:
            if self._spec is not None:
                self._spec = {key: value for key, value in self._spec.items() if key != INT8}
            self._fingerprint = None  # of a network with other ranges
            source = _quantizable(self._given or self._loaded(parameters))
            self._quantized, self._chosen, self._made = source.quantized(images), None, {}
            self._spec = None

    def get(self, parameters: Parameters, fitted: str | None) -> Backbone:
        """The network by the runtime that ``parameters`` name, loaded on first use; errors as in `InReaCh.prepare`.

        ``fitted``: the runtime of the model's fit, which "auto" stands for; None: nothing is fitted, and "auto" stands
        for the fastest.
        """
        from ..backbones import by_fastest_runtime

        wanted, size = parameters.backbone_runtime, parameters.image_size
        with self._lock:
            name = (fitted or self._chosen) if wanted == "auto" else wanted
            if name is not None and name in self._made:
                return self._made[name]
            source = self._quantized or self._given or self._loaded(parameters)
            if not hasattr(source, "with_runtime"):
                if name not in (None, UNFOLDED):
                    raise ParameterError(f"backbone_runtime: {type(source).__name__} has none to choose; leave it out")
                return source
            if name is None:
                made = by_fastest_runtime(source, size)
                self._chosen = made.runtime
            else:
                made = _by_runtime(source, name, size, fitted)
            self._made[made.runtime] = made
            return made

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
