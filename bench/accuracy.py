"""``python -m bench.accuracy``: presets, ablations and baselines on corrupted training sets, as JSON lines and a table.

A case is one data set, one share of corrupt training images, one seeded order (which also draws the images) and one
method. Finished cases are in the JSON lines file and are not computed again: a run that was stopped goes on where it
was. Baselines get the same descriptors: those of `Descriptors`, on a grid of 28 x 28, reduced to 128 dimensions on the
training set in use.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inreach_fast import InReaCh
from inreach_fast.evaluation import metrics
from inreach_fast.evaluation.mvtec import Dataset, Sample, list_classes, read_dataset
from inreach_fast.evaluation.protocol import network_mask
from inreach_fast.images.preprocess import Geometry
from inreach_fast.images.reading import read_image
from inreach_fast.method.evidence import evidence_threshold
from inreach_fast.method.scoring import anomaly_map
from inreach_fast.parameters import PRESETS

from . import ROOT, accuracy_methods
from .workload import Workload, data_folder, describe, scratch_folder

Rows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

SIDE, GRID, SIGMA = 224, 28, 5.0
WIDTH, DIM = 1024, 128
SHARES = (0, 10, 20, 40)
CLEAN = "clean: "
"""Before a rule's name: the corrupt images are taken out by their labels."""
METHODS = (
    *accuracy_methods.RULES,
    *(CLEAN + name for name in ("reachability", "every patch")),
    *(f"preset {name}" for name in PRESETS if name != "reference"),
)
COLUMNS = (
    ("image_auroc", "image AUROC"),
    ("image_auroc_overlap", "with the corrupt images"),
    ("pixel_auroc", "pixel AUROC"),
    ("aupro", "AUPRO"),
    ("audit_auroc", "audit AUROC"),
    ("false_alarms", "false alarms"),
    ("misses", "misses"),
    ("excess", "over the best threshold"),
    ("fit_seconds", "fit, s"),
    ("score_ms", "an image, ms"),
    ("megabytes", "MB"),
)


@dataclass(frozen=True)
class Case:
    """One training set: positions in ``samples`` (the class's own images, then its test images), in their order."""

    name: str
    share: int
    order: int
    train: npt.NDArray[np.int64]
    corrupt: Flags


@dataclass(frozen=True)
class Outcome:
    """What a method gives: maps (T, 224, 224) and scores (T,) of all test images.

    ``own``: leave-one-image-out scores of the training images, None if the method has none. ``masks``: the truth at the
    maps' pixels, None for the whole image resized.
    """

    maps: Scores
    scores: Scores
    own: Scores | None
    threshold: float | None
    fit_seconds: float
    score_seconds: float
    stored: int
    masks: Flags | None = None


class Descriptors:
    """A class's samples, masks and descriptors (S, 784, 1024), kept in a file of the scratch folder."""

    def __init__(self, root: Path, name: str, work: Workload, folder: Path) -> None:
        self.name, self._work, self._folder = name, work, folder
        self.dataset: Dataset = read_dataset(root, name)
        self.samples: tuple[Sample, ...] = (*self.dataset.train, *self.dataset.test)
        self.first_test = len(self.dataset.train)
        self.defective: Flags = np.array([sample.defective for sample in self.dataset.test])

    @cached_property
    def masks(self) -> Flags:
        """bool (T, 224, 224) of the test images."""
        return truth(self.dataset, Geometry(resize=(SIDE, SIDE)), [0] * len(self.dataset.test))

    @cached_property
    def rows(self) -> Any:
        """float32 (S, 784, 1024): means of 2 x 2 cells of the paper's descriptors."""
        path = self._folder / f"accuracy-{self.name}-{self._work.backbone.fingerprint[:12]}-{len(self.samples)}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part.npy")
            shape = (len(self.samples), GRID * GRID, WIDTH)
            out = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float32, shape=shape)
            for place, sample in enumerate(self.samples):
                out[place] = _pooled(describe(read_image(sample.path), self._work.backbone, SIDE))
                _say(f"{self.name}: descriptors {place + 1} of {len(self.samples)}", end="\r")
            out.flush()
            del out
            unfinished.rename(path)
        return np.load(path, mmap_mode="r")

    def case(self, share: int, order: int, images: int) -> Case:
        """``images`` training images, ``share`` per cent of them defective test images; drawn and ordered by seed.

        At most half of the defective images are taken: a class with fewer has a smaller training set.
        """
        random = np.random.default_rng((order, share))
        good, bad = random.permutation(self.first_test), random.permutation(np.flatnonzero(self.defective))
        total = min(images, len(good) * 100 // max(100 - share, 1), (len(bad) * 2 // 3) * 100 // max(share, 1))
        corrupt = round(total * share / 100)
        train = np.concatenate([good[: total - corrupt], bad[:corrupt] + self.first_test])
        order_of = random.permutation(total)
        return Case(self.name, share, order, train[order_of], (np.arange(total) >= total - corrupt)[order_of])

    def reduced(self, case: Case) -> tuple[Rows, Rows]:
        """Descriptors in 128 dimensions, of the case's training images and of all test images."""
        mean, basis = principal_axes(np.stack([self.rows[i] for i in case.train]), DIM, case.order)

        def project(numbers: Sequence[int]) -> Rows:
            return np.stack([(self.rows[i] - mean) @ basis for i in numbers])

        return project(case.train.tolist()), project(range(self.first_test, len(self.samples)))


def principal_axes(rows: Rows, dim: int, seed: int, sample: int = 20_000) -> tuple[Rows, Rows]:
    """Mean (D,) and first ``dim`` principal axes (D, dim) of a seeded sample of the rows (N, P, D)."""
    flat = rows.reshape(-1, rows.shape[-1])
    taken = np.random.default_rng(seed).permutation(len(flat))[:sample]
    x = flat[np.sort(taken)].astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    _, axes = np.linalg.eigh(x.T @ x)
    return mean.astype(np.float32), np.ascontiguousarray(axes[:, ::-1][:, :dim].astype(np.float32))


def run_rule(rule: Callable[[Rows], accuracy_methods.Fitted], train: Rows, test: Rows) -> Outcome:
    """A rule of `accuracy_methods` on descriptors (N, P, D), on all test images (T, P, D)."""
    begun = time.perf_counter()
    fitted = rule(train)
    middle = time.perf_counter()
    patches = [fitted.score(rows) for rows in test]
    seconds = (time.perf_counter() - middle) / len(test)
    maps = np.stack([_map(values) for values in patches])
    if fitted.image_score is None:
        scores = maps.max(axis=(1, 2))
    else:
        scores = np.array([fitted.image_score(*pair) for pair in zip(test, patches, strict=True)], np.float32)
    own = None if fitted.own is None else np.array([_map(values).max() for values in fitted.own], np.float32)
    return Outcome(
        maps=maps,
        scores=scores,
        own=own,
        threshold=None if own is None else evidence_threshold(own),
        fit_seconds=middle - begun,
        score_seconds=seconds,
        stored=fitted.stored,
    )


def run_preset(preset: str, data: Descriptors, case: Case, backbone: Any, folder: Path) -> Outcome:
    """The library's own way from the files: network, descriptors and threshold included."""
    begun = time.perf_counter()
    model = InReaCh(preset=preset, backbone=backbone, threshold_images=len(case.train))
    model.fit([data.samples[i].path for i in case.train])
    middle = time.perf_counter()
    predictions = [model.predict(read_image(sample.path)) for sample in data.dataset.test]
    seconds = (time.perf_counter() - middle) / len(predictions)
    path = folder / "accuracy-model.inreach"
    model.save(path, final=True)
    stored = path.stat().st_size
    path.unlink()
    angles = [int(prediction.rotation) for prediction in predictions]
    pairs = list(zip(predictions, angles, strict=True))
    shape, sigma = predictions[0].anomaly_map.shape, model.parameters.smoothing_sigma
    return Outcome(
        # A map of a rotated image was rotated back and has no values in its corners: take the one before.
        maps=np.stack([anomaly_map(p.patch_scores, shape, sigma) if angle else p.anomaly_map for p, angle in pairs]),
        scores=np.array([prediction.score for prediction in predictions], np.float32),
        own=model.training_scores(),
        threshold=model.threshold_,
        fit_seconds=middle - begun,
        score_seconds=seconds,
        stored=stored,
        masks=truth(data.dataset, model.geometry, angles),
    )


def truth(dataset: Dataset, geometry: Geometry, angles: Sequence[int]) -> Flags:
    """Masks of the test images at the network's input, bool (T, h, w); images without one are good everywhere."""
    found = [network_mask(sample, geometry, angle) for sample, angle in zip(dataset.test, angles, strict=True)]
    return np.stack([np.zeros((SIDE, SIDE), dtype=bool) if mask is None else mask for mask in found])


def figures(outcome: Outcome, data: Descriptors, case: Case) -> dict[str, float]:
    """All figures of a case: without the corrupt images in the test set, and with them (``_overlap``)."""
    labels, of_all = data.defective, data.masks if outcome.masks is None else outcome.masks
    fresh = ~np.isin(np.arange(len(labels)) + data.first_test, case.train)
    found: dict[str, float] = {}
    for suffix, keep in (("", fresh), ("_overlap", np.ones_like(fresh))):
        truth, scores, masks, maps = labels[keep], outcome.scores[keep], of_all[keep], outcome.maps[keep]
        found |= {
            f"image_auroc{suffix}": metrics.auroc(truth, scores),
            f"pixel_auroc{suffix}": metrics.auroc(masks.ravel(), maps.ravel()),
            f"aupro{suffix}": metrics.aupro(masks, maps),
        }
    if outcome.own is not None and case.corrupt.any() and len(outcome.own) == len(case.corrupt):
        found["audit_auroc"] = metrics.auroc(case.corrupt, outcome.own)
    if outcome.threshold is not None:
        good, bad = outcome.scores[fresh & ~labels], outcome.scores[fresh & labels]
        false_alarms, misses = float((good > outcome.threshold).mean()), float((bad <= outcome.threshold).mean())
        found |= {
            "false_alarms": false_alarms,
            "misses": misses,
            "excess": (false_alarms + misses) / 2 - least_balanced_error(good, bad),
        }
    return found | {
        "fit_seconds": outcome.fit_seconds,
        "score_ms": outcome.score_seconds * 1000,
        "megabytes": outcome.stored / 1e6,
    }


def least_balanced_error(good: Scores, bad: Scores) -> float:
    """Mean of false-alarm rate and miss rate at the best threshold that labels could choose."""
    at = np.concatenate([[-np.inf], good, bad])
    above = 1.0 - np.searchsorted(np.sort(good), at, side="right") / len(good)
    missed = np.searchsorted(np.sort(bad), at, side="right") / len(bad)
    return float((above + missed).min() / 2)


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """A table for each class and share: mean over the orders [least, greatest]."""
    lines: list[str] = []
    for name, share in dict.fromkeys((record["class"], record["share"]) for record in records):
        mine = [record for record in records if (record["class"], record["share"]) == (name, share)]
        lines += [f"**{name}**, {share} % corrupt, {mine[0]['train']} training images", ""]
        lines += ["| method | " + " | ".join(title for _, title in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for method in dict.fromkeys(record["method"] for record in mine):
            runs = [record["figures"] for record in mine if record["method"] == method]
            cells = [_cell([run[key] for run in runs if key in run], key) for key, _ in COLUMNS]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(values: list[float], key: str) -> str:
    if not values:
        return ""
    digits = 1 if key in ("fit_seconds", "score_ms", "megabytes") else 3
    mean, low, high = (f"{value:.{digits}f}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if low == high else f"{mean} [{low}, {high}]"


def read_records(path: Path) -> list[dict[str, Any]]:
    """Finished cases; a last line that was cut short is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a case the same case."""
    return tuple(record[name] for name in ("class", "share", "order", "method", "images", "features"))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All requested cases, each appended to the file as soon as it is there; returns them in a fixed order."""
    done = {key_of(record): record for record in read_records(options.results)}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    work = Workload(options.backbone, options.weights)
    names = options.classes.split(",") if options.classes else list_classes(options.data)
    wanted: list[tuple[Any, ...]] = []
    for name in names:
        data = Descriptors(options.data, name, work, options.scratch)
        for case in _cases(data, options):
            reduced: tuple[Rows, Rows] | None = None
            for method in options.methods:
                head = {"class": name, "share": case.share, "order": case.order, "method": method}
                head |= {"images": options.images, "features": work.backbone.name}
                wanted.append(key_of(head))
                if key_of(head) in done:
                    continue
                begun = time.perf_counter()
                if method.startswith("preset "):
                    outcome = run_preset(method.removeprefix("preset "), data, case, work.backbone, options.scratch)
                else:
                    reduced = reduced or data.reduced(case)
                    train = reduced[0][~case.corrupt] if method.startswith(CLEAN) else reduced[0]
                    outcome = run_rule(accuracy_methods.RULES[method.removeprefix(CLEAN)], train, reduced[1])
                record = head | {"train": len(case.train), "figures": figures(outcome, data, case)}
                done[key_of(head)] = record
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                auroc = record["figures"]["image_auroc"]
                _say(
                    f"{name}, {case.share} % corrupt, order {case.order}, {method}: image AUROC {auroc:.3f} "
                    f"({time.perf_counter() - begun:.0f} s)"
                )
    return [done[key] for key in wanted]


def _cases(data: Descriptors, options: argparse.Namespace) -> Iterator[Case]:
    for share in options.corrupt:
        for order in range(options.orders):
            yield data.case(share, order, options.images)


def _pooled(rows: Rows) -> Rows:
    """Means of 2 x 2 cells of a grid of 56 x 56: (3136, D) to (784, D)."""
    cells = rows.reshape(GRID, 2, GRID, 2, rows.shape[-1])
    return np.asarray(cells.mean(axis=(1, 3)).reshape(GRID * GRID, -1))


def _map(patch_scores: Scores) -> Scores:
    return anomaly_map(patch_scores.reshape(GRID, GRID), (SIDE, SIDE), SIGMA)


def _say(text: str, end: str = "\n") -> None:
    print(text, file=sys.stderr, end=end, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=data_folder(), help="folder of classes in MVTec AD's layout")
    add("--classes", help="classes, separated by commas (default: all in --data)")
    add("--corrupt", type=_numbers, default=SHARES, help="per cent of corrupt training images (default: 0,10,20,40)")
    add("--orders", type=int, default=3, help="number of seeded draws and orders (default: 3)")
    add("--images", type=int, default=100, help="training images in a case (default: 100)")
    add("--methods", type=_methods, default=METHODS, help=f"some of: {', '.join(METHODS)} (default: all)")
    add("--backbone", default="auto", help="backbone, see bench/README.md (default: auto)")
    add("--weights", default="official", help="weights of --backbone: official, random or a file")
    add("--scratch", type=Path, default=scratch_folder(), help="folder for descriptors")
    folder = ROOT / "bench" / "results"
    add("--results", type=Path, default=folder / "accuracy.jsonl", help="finished cases, read and appended to")
    add("--markdown", type=Path, default=folder / "accuracy.md", help="file for the table")
    options = parser.parse_args(arguments)
    text = markdown(measure(options))
    options.markdown.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown method {', '.join(unknown)}; give some of {', '.join(METHODS)}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
