"""A fitted model as one file, and back; `model_file` has the format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..array_types import Array
from ..errors import ModelCorruptError
from ..fit.growth_state import GrowthState
from ..fit.report import FitReport
from ..images.alignment import Alignment
from ..method.compression import Compression
from ..method.descriptors import check_grid
from ..method.nominal_model import NominalModel
from ..parameters import Parameters
from ..storage import model_file
from .network import WithNetwork, as_backbone

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..backbones import Backbone

_NOMINAL_ARRAYS = ("patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch")


class Saving(WithNetwork):
    """The part of `InReaCh` that is written to files and read from them."""

    def save(self, path: str | os.PathLike[str], *, final: bool = False) -> None:
        """Writes the fitted model to one file (format: `model_file`); the same fit gives the same bytes.

        Args:
            path: where to.
            final: leave out what only `partial_fit` and `forget` need. A model saved without it holds the *training
                images* as the network sees them: save the model that you hand out with ``final=True``.

        Raises:
            NotFittedError. SaveError: full disk, no permission; an older file of that name is left as it was.
        """
        self._check_fitted()
        backbone = None
        if not self._from_descriptors:
            fingerprint = self._fingerprint or self.backbone.fingerprint
            spec = self._spec or self.backbone.spec
            backbone = {"name": self.parameters.backbone, "fingerprint": fingerprint, "spec": spec}
        arrays: dict[str, Array] = {name: getattr(self.nominal_, name) for name in _NOMINAL_ARRAYS}
        arrays["threshold_scores"] = self.threshold_scores_
        arrays["threshold_images"] = self.threshold_images_
        arrays["seed_images"] = self.seed_images_
        if self.nominal_.index_arrays is None:
            self.nominal_.build_index(None, 0)
        arrays.update({f"index.{name}": array for name, array in sorted((self.nominal_.index_arrays or {}).items())})
        state = None if final else self._growth_state()
        if state is not None:
            arrays.update({f"growth.{name}": array for name, array in state.to_arrays().items()})
        if self._alignment is not None:
            arrays.update({f"alignment.{k}": v for k, v in self._alignment.to_arrays().items()})
        meta = {
            "kind": "InReaCh",
            "parameters": self.parameters.as_dict(),
            "backbone": backbone,
            "grid": list(self.grid_),
            "threshold": self.threshold_,
            "n_images": self.n_images_,
            "image_names": self.image_names_,
            "positions": self.positions_,
            "transpose_score": None if np.isnan(self.transpose_score_) else self.transpose_score_,
            "alignment": None if self._alignment is None else self._alignment.to_json(),
            "report": self.report_.counts,  # not the seconds: they differ from run to run
        }
        if self.nominal_.compression is not None:
            meta["compression"] = self.nominal_.compression.as_dict()
        holding = None if self._spool is None else self._spool.file_of(self.nominal_.patches)
        model_file.save_file(path, meta, arrays, holding=holding)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: Backbone | str | None = None,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        backend: str | None = None,
        verify: bool = True,
    ) -> Self:
        """Reads a saved model; its patches stay on disk, memory-mapped.

        The file holds no program and no weights, but what the network is rebuilt from at the first `predict`: its
        name, levels and normalisation, the weights file's name as it was given and its sha256. A factory,
        FILE.py:FACTORY, is run from its recorded place: load such models only from people whom you trust.

        Args:
            path: the file.
            backbone: the network, where it cannot be rebuilt or lies elsewhere: a `Backbone`, or a name as in
                `Parameters`. Its fingerprint must be the model's, told here or, of a name, at the first `predict`.
            weights: the weights file, where it is neither where it was nor beside the model.
            device: torch device of the network, instead of the one it was fitted on.
            backend: kernel backend, instead of the one it was fitted with.
            verify: check the whole file's sha256: reads it once, at the disk's speed. Without it loading takes a moment
                however large the model is, and what an altered file makes of a search is not told.

        Raises:
            ModelFileError, ModelCorruptError, ModelVersionError, BackboneMismatchError; ParameterError: an
            argument is not as above.
        """
        if backbone is not None and not isinstance(backbone, str):
            backbone = as_backbone(backbone)
        meta, arrays = model_file.load_file(path, verify=verify)
        try:
            if meta["kind"] != "InReaCh":
                raise ValueError(f"a model of kind {meta['kind']!r}")
            self = cls()
            self.parameters = Parameters.from_dict(meta["parameters"])
            compression = Compression.from_dict(meta["compression"]) if "compression" in meta else None
            self.nominal_ = NominalModel(
                **{name: arrays[name] for name in _NOMINAL_ARRAYS},
                index_arrays=_parts(arrays, "index.") or None,
                compression=compression,
            )
            self.threshold_scores_ = np.array(arrays["threshold_scores"])
            self.threshold_images_ = np.array(arrays["threshold_images"])
            self.threshold_ = float(meta["threshold"])
            self.grid_ = check_grid(meta["grid"], int(np.prod(meta["grid"])))
            self.n_images_ = int(meta["n_images"])
            self.image_names_ = [str(name) for name in meta["image_names"]]
            self.positions_ = bool(meta["positions"])
            self.transpose_score_ = float("nan" if meta["transpose_score"] is None else meta["transpose_score"])
            self.report_ = FitReport(meta["report"])
            self._alignment = None
            if meta["alignment"] is not None:
                self._alignment = Alignment.from_parts(_parts(arrays, "alignment."), meta["alignment"])
            self.rotations_ = None if self._alignment is None else self._alignment.angles.astype(np.float64)
            seeds = arrays["seed_images"] if "seed_images" in arrays else self.report_["seed_images"]
            self.seed_images_ = np.array(seeds, dtype=np.int64)
            growth = _parts(arrays, "growth.")
            patches = self.grid_[0] * self.grid_[1]
            self._growth = (
                GrowthState.from_arrays(growth, self.seed_images_, patches, len(self.nominal_)) if growth else None
            )
            self._grown_nominal = self.nominal_
            self._from_descriptors = meta["backbone"] is None
            if meta["backbone"] is not None:
                self._spec = dict(meta["backbone"]["spec"])
                self._fingerprint = str(meta["backbone"]["fingerprint"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelCorruptError(f"{path}: lacks or garbles a part ({error}); fit and save it again") from error
        self._described = None
        self._scorer = None
        self._fitted = True
        self._folder = Path(path).parent
        here = {name: value for name, value in (("device", device), ("backend", backend)) if value is not None}
        self.parameters = self.parameters.with_changes(**here)
        if self._spec is not None:
            if isinstance(backbone, str):
                plain = {"weights": "official", "weights_sha256": None, "seed": 0}
                self._spec = {**plain, **self._spec, "backbone": backbone, "rebuildable": True}
            elif backbone is not None:
                self._check_backbone(backbone)
                self._backbone = backbone
            if weights is not None:
                self._spec["weights"] = os.fspath(weights)
        return self


def _parts(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
