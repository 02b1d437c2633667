"""`FittedState`: everything that a fit leaves, as one object; to the parts of a model file and back."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..array_types import Array, FloatArray, IndexArray
from ..fit.growth_state import GrowthState
from ..fit.report import FitReport
from ..fit.result import FitResult
from ..images.alignment import Alignment
from ..method.arrangement import EVERY, ORDERS, Arrangement
from ..method.compression import Compression
from ..method.descriptors import check_grid
from ..method.feedback import Feedback
from ..method.nominal_model import NominalModel
from ..method.projection import Projection
from ..method.scoring import frame_of
from ..parameters import UNFOLDED, Parameters
from ..storage.thumbnails import Thumbnails
from .feedback_parts import feedback_arrays, feedback_from_parts, feedback_to_json

_NOMINAL_ARRAYS = ("patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch")

# An array of descriptors, as long as its owner keeps it, and the number of an image in it.
Reference = tuple["weakref.ref[Any]", int]


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedState:
    """A fitted model without its parameters and network; nominal to report: as in `InReaCh`, with an underscore."""

    nominal: NominalModel
    grid: tuple[int, int]
    image_names: list[str]
    arrangement: Arrangement
    seed_images: IndexArray
    positions: bool
    transpose_score: float
    projection: Projection | None
    threshold_scores: FloatArray
    threshold_images: IndexArray
    report: FitReport
    alignment: Alignment | None  # None unless images are rotated
    thumbnails: Thumbnails | None
    growth: GrowthState | None  # None if the model is final or compressed
    from_descriptors: bool
    runtime: str | None = None  # what computed the network in the fit (`backbones.runtimes`); None: descriptors
    runtime_version: str | None = None  # of its package; None: not recorded
    feedback: tuple[Feedback, ...] = ()  # in the order in which it was given
    references: list[Reference | None] | None = None  # to the descriptors of each image while the caller keeps them

    @classmethod
    def of_fit(cls, result: FitResult, references: list[Reference | None] | None = None) -> FittedState:
        """The state after a fit; ``references`` only of one of descriptors."""
        values = {f.name: getattr(result, f.name) for f in fields(result)}
        alignment = values.pop("alignment")
        return cls(
            **values,
            alignment=alignment if alignment is not None and alignment.kept else None,
            transpose_score=float("nan") if alignment is None else alignment.score_before,
            from_descriptors=alignment is None,
            references=references,
        )

    def as_result(self) -> FitResult:
        """The fit's result, which growing starts from."""
        return FitResult(**{f.name: getattr(self, f.name) for f in fields(FitResult)})

    @property
    def runtime_record(self) -> dict[str, Any]:
        """What a model file says of the runtime; nothing of one that older files do not name."""
        if self.runtime in (None, UNFOLDED):
            return {}
        return {"runtime": self.runtime, "runtime_version": self.runtime_version}

    @property
    def n_images(self) -> int:
        """Training images used."""
        return len(self.image_names)

    @property
    def originals(self) -> IndexArray:
        """The first image with the content of each training image, int64 (N,)."""
        return self.arrangement.originals

    def to_parts(self, *, final: bool, thumbnails: bool) -> tuple[dict[str, Any], dict[str, Array]]:
        """JSON and arrays for a model file.

        ``final`` leaves out what only growing needs. Without ``thumbnails`` the sizes of the training images are kept
        and their pictures are not.
        """
        nominal, alignment = self.nominal, self.alignment
        if nominal.index_arrays is None:
            nominal.build_index(None, 0)
        arrays: dict[str, Array] = {name: getattr(nominal, name) for name in _NOMINAL_ARRAYS}
        for name in ("confirmation", "following"):
            if getattr(nominal, name) is not None:
                arrays[name] = getattr(nominal, name)
        if self.projection is not None:
            arrays.update({f"projection.{name}": array for name, array in vars(self.projection).items()})
        arrays.update({name: getattr(self, name) for name in ("threshold_scores", "threshold_images", "seed_images")})
        arrays.update({f"index.{name}": array for name, array in sorted((nominal.index_arrays or {}).items())})
        if self.thumbnails is not None:
            kept = self.thumbnails if thumbnails else self.thumbnails.without_pictures()
            arrays.update({f"thumbnails.{name}": array for name, array in kept.to_arrays().items()})
        if self.growth is not None and not final:
            arrays.update({f"growth.{name}": array for name, array in self.growth.to_arrays().items()})
        if alignment is not None:
            arrays.update({f"alignment.{name}": array for name, array in alignment.to_arrays().items()})
        meta: dict[str, Any] = {
            "grid": list(self.grid),
            "n_images": self.n_images,
            "image_names": self.image_names,
            "positions": self.positions,
            "transpose_score": None if np.isnan(self.transpose_score) else self.transpose_score,
            "alignment": None if alignment is None else alignment.to_json(),
            "report": self.report.counts,  # without the seconds, which differ from run to run
        }
        if self.feedback:
            meta["feedback"] = [feedback_to_json(entry) for entry in self.feedback]
            arrays.update(feedback_arrays(self.feedback, final=final))
        if self.arrangement.order != EVERY:
            arrays["image_places"] = self.arrangement.place
            meta["image_order"] = self.arrangement.order
        if nominal.compression is not None:
            meta["compression"] = nominal.compression.as_dict()
        return meta, arrays

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> FittedState:
        """Inverse of `to_parts`. Raises KeyError, TypeError or ValueError if a part is missing or malformed."""
        compression = Compression.from_dict(meta["compression"]) if "compression" in meta else None
        floors = {name: arrays[name] for name in ("confirmation", "following") if name in arrays}
        if "confirmation" not in floors and meta["parameters"].get("score") == "reachability":
            raise KeyError("confirmation")
        for name, values in floors.items():
            if not (values.dtype == np.float32 and (values >= 0).all()):
                raise ValueError(f"{name}: no squared distances")
        nominal = NominalModel(
            **{name: arrays[name] for name in _NOMINAL_ARRAYS},
            index_arrays=_parts(arrays, "index.") or None,
            compression=compression,
            **floors,
        )
        projection = _parts(arrays, "projection.")
        grid = check_grid(meta["grid"], int(np.prod(meta["grid"])))
        report, alignment = FitReport(meta["report"]), meta["alignment"]
        seeds = arrays["seed_images"] if "seed_images" in arrays else report["seed_images"]
        seed_images = np.array(seeds, dtype=np.int64)
        growth, thumbnails = _parts(arrays, "growth."), _parts(arrays, "thumbnails.")
        names = [str(name) for name in meta["image_names"]]
        arrangement = Arrangement(EVERY, np.arange(len(names), dtype=np.int64))
        if "image_order" in meta:
            arrangement = Arrangement(str(meta["image_order"]), np.array(arrays["image_places"]))
        if arrangement.order not in ORDERS or not arrangement.is_valid(len(names)):
            raise ValueError("the images' places")
        seed_places = np.sort(arrangement.place[seed_images])
        places = frame_of(Parameters.from_dict(meta["parameters"]), grid).count
        return cls(
            nominal=nominal,
            grid=grid,
            image_names=names,
            arrangement=arrangement,
            seed_images=seed_images,
            positions=bool(meta["positions"]),
            transpose_score=float("nan" if meta["transpose_score"] is None else meta["transpose_score"]),
            projection=Projection(**projection) if projection else None,
            threshold_scores=np.array(arrays["threshold_scores"]),
            threshold_images=np.array(arrays["threshold_images"]),
            report=report,
            alignment=None if alignment is None else Alignment.from_parts(_parts(arrays, "alignment."), alignment),
            thumbnails=Thumbnails.from_arrays(thumbnails, len(names)) if thumbnails else None,
            growth=GrowthState.from_arrays(growth, arrangement, seed_places, places, len(nominal)) if growth else None,
            from_descriptors=meta["backbone"] is None,
            runtime=None if meta["backbone"] is None else str(meta["backbone"].get("runtime", UNFOLDED)),
            runtime_version=None if meta["backbone"] is None else meta["backbone"].get("runtime_version"),
            feedback=feedback_from_parts(meta.get("feedback", ()), _parts(arrays, "feedback."), nominal, grid),
        )


def _parts(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
