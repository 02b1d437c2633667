"""Labelled data sets on disk, and the training sets of the paper's protocol (ALGORITHM section 7).

The layout ``mvtec``::

    ROOT/CLASS/train/good/000.png   ROOT/CLASS/test/TYPE/000.png   ROOT/CLASS/ground_truth/TYPE/000_mask.png

The layout ``folder`` is for unsorted images; those with a mask are defective::

    ROOT/CLASS/train/*.png   ROOT/CLASS/test/*.png   ROOT/CLASS/masks/{train,test}/NAME.png

If the class name is empty, ROOT is the class. Files are sorted by name. Which files are images is decided as in a fit:
any format that it reads, no hidden file or folder. A mask has its image's name, with or without ``_mask``, and any
suffix and size; `read_mask` says which of its pixels are defective. An MVTec class without ``ground_truth`` has no
masks: the folders of its test images are labels enough for the figures of whole images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..array_types import BoolArray
from ..errors import DataError, EmptyFolderError, ImageError, ParameterError
from ..images.folders import images_of, is_hidden, read_folder
from ..images.masks import read_mask_file
from ..images.pixels import DEFAULT_RULE, PixelRule
from .supplement import corruption_list

Layout = Literal["mvtec", "folder"]


@dataclass(frozen=True)
class Sample:
    """One image: its file, its name within its split (``"crack/007.png"``), its mask, and whether it is defective.

    ``labelled`` is what the folders say; None: it is defective if it has a mask.
    """

    path: Path
    name: str
    mask_path: Path | None = None
    labelled: bool | None = None

    @property
    def defective(self) -> bool:
        return self.mask_path is not None if self.labelled is None else self.labelled


@dataclass(frozen=True)
class Dataset:
    """One class: its training images (good ones in MVTec's layout) and its test images.

    ``passed_over`` says, for each folder with such, which entries are not read, hidden ones aside.
    """

    root: Path
    class_name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingSet:
    """What `fit` gets, in its order; ``from_test[i]``: sample i is a corruption, added from the test set."""

    samples: tuple[Sample, ...]
    from_test: tuple[bool, ...]


def list_classes(root: str | Path, *, layout: Layout = "mvtec") -> list[str]:
    """Sorted names of the class folders in root (those with ``train`` and ``test``).

    Raises:
        DataError: root is not a folder. EmptyFolderError: no class in it.
    """
    base = _folder(Path(root), "the data set's root")
    _check_layout(layout)
    train = Path("train", "good") if layout == "mvtec" else Path("train")
    names = sorted(p.name for p in _folders(base) if (p / train).is_dir() and (p / "test").is_dir())
    if not names:
        expected = f"{layout} layout: CLASS/{train.as_posix()} and CLASS/test"
        raise EmptyFolderError(f"{base}: no class folder in it ({expected}); give the folder that holds the classes")
    return names


def read_dataset(root: str | Path, class_name: str, *, layout: Layout = "mvtec") -> Dataset:
    """Lists the images and masks of one class; the layouts are described above.

    Raises:
        DataError: a folder is missing; the mask of a defective MVTec image is, although others are there; or images and
            masks do not belong to each other one to one. EmptyFolderError: no image in a folder.
    """
    _check_layout(layout)
    base = _folder(Path(root) / class_name if class_name else Path(root), f"class {class_name!r}")
    notes: list[str] = []
    train, test = (_read_mvtec if layout == "mvtec" else _read_folder)(base, notes)
    return Dataset(Path(root), class_name or base.name, tuple(train), tuple(test), tuple(notes))


def make_training_set(dataset: Dataset, *, corrupt: int = 0, shuffle: int | None = None) -> TrainingSet:
    """The class's own images, then the first ``corrupt`` images of its list in the supplement's Tables 4 to 6.

    Args:
        corrupt: 0 to 40 (the paper has 0, 10 and 40). The corruptions stay in the test set too.
        shuffle: None for the authors' order; a seed for the order of ``numpy.random.default_rng(seed).permutation``.

    Raises:
        ParameterError: corrupt or shuffle. DataError: the class has no list, or a listed file is missing.
    """
    if isinstance(corrupt, bool) or not isinstance(corrupt, int) or not 0 <= corrupt <= 40:
        raise ParameterError(f"corrupt: must be an integer from 0 to 40 (the paper uses 0, 10, 40), got {corrupt!r}")
    by_name = {sample.name: sample for sample in dataset.test}
    pairs = [(sample, False) for sample in dataset.train]
    for name in corruption_list(dataset.class_name)[:corrupt] if corrupt else ():
        if name not in by_name:
            raise DataError(
                f"{dataset.root / dataset.class_name / 'test' / name}: missing, but the supplement's "
                f"corruption list of {dataset.class_name!r} names it; keep MVTec AD's file names"
            )
        pairs.append((by_name[name], True))
    if shuffle is not None:
        if isinstance(shuffle, bool) or not isinstance(shuffle, int) or shuffle < 0:
            raise ParameterError(f"shuffle: must be None or a seed of at least 0, got {shuffle!r}")
        pairs = [pairs[i] for i in np.random.default_rng(shuffle).permutation(len(pairs))]
    samples, from_test = zip(*pairs, strict=True)
    return TrainingSet(samples, from_test)


def read_mask(sample: Sample, rule: PixelRule = DEFAULT_RULE) -> BoolArray | None:
    """The sample's ground truth: bool (H, W), True is defect; None without a mask. Raises ImageError.

    `images.masks.read_mask_file` says which pixels of a file are marked.
    """
    if sample.mask_path is None:
        return None
    try:
        return read_mask_file(sample.mask_path, rule)
    except ImageError as error:
        raise ImageError(f"{error} (it is the mask of {sample.path.name})") from error


def with_masks_read(
    samples: Sequence[Sample], rule: PixelRule = DEFAULT_RULE, *, skip_bad: bool = False
) -> tuple[list[Sample | None], list[str]]:
    """The samples as their masks say: one whose mask is black throughout is a good image.

    Returns:
        The samples in their order, with ``skip_bad`` None in place of those whose masks cannot be read; and why.

    Raises:
        ImageError: a mask cannot be read.
    """
    checked: list[Sample | None] = []
    reasons: list[str] = []
    for sample in samples:
        try:
            mask = read_mask(sample, rule)
        except ImageError as error:
            if not skip_bad:
                raise
            reasons.append(str(error))
            checked.append(None)
        else:
            good = mask is not None and not mask.any()
            checked.append(replace(sample, mask_path=None, labelled=False) if good else sample)
    return checked, reasons


def _read_mvtec(base: Path, notes: list[str]) -> tuple[list[Sample], list[Sample]]:
    good = _images(base / "train" / "good", "the good training images", notes)
    train = [Sample(path, f"good/{path.name}") for path in good]
    folder = _folder(base / "test", "the test images")
    kinds = _folders(folder)
    if not kinds:
        raise EmptyFolderError(f"{folder}: holds no folder of test images (good and one for each defect type)")
    test: list[Sample] = []
    truths = base / "ground_truth"
    for kind in kinds:
        paths = _images(kind, "test images", notes)
        if kind.name == "good":
            test += [Sample(path, f"good/{path.name}") for path in paths]
        elif not truths.is_dir():
            test += [Sample(path, f"{kind.name}/{path.name}", labelled=True) for path in paths]
        else:
            truth = _folder(truths / kind.name, f"the masks of test/{kind.name}")
            found = read_folder(truth).images
            masks = _pairs(paths, found)
            if len(found) > len(masks):
                notes.append(f"{truth}: passed over: {len(found) - len(masks)} masks without an image")
            for path in paths:
                if path not in masks:
                    missing = truth / f"{path.stem}_mask.png"
                    raise DataError(
                        f"{missing}: missing; give the mask of {path}, or move {truths.name} away for image figures"
                    )
                test.append(Sample(path, f"{kind.name}/{path.name}", masks[path]))
    return train, test


def _read_folder(base: Path, notes: list[str]) -> tuple[list[Sample], list[Sample]]:
    splits: list[list[Sample]] = []
    for split in ("train", "test"):
        folder = base / "masks" / split
        found = read_folder(folder).images if folder.is_dir() else []
        paths = _images(base / split, f"the {split} images", notes)
        masks = _pairs(paths, found)
        splits.append([Sample(path, path.name, masks.get(path)) for path in paths])
        stray = sorted(set(found) - set(masks.values()))
        if stray:
            raise DataError(f"{stray[0]}: this mask has no image of its name in {base / split}; rename or remove it")
    return splits[0], splits[1]


def _pairs(images: Sequence[Path], masks: Sequence[Path]) -> dict[Path, Path]:
    """The mask of each image that has one: NAME or NAME_mask, any suffix. DataError if it is not certain which."""
    stems = Counter(path.stem for path in images)
    named: dict[str, list[Path]] = {}
    for mask in masks:
        named.setdefault(mask.stem, []).append(mask)
    pairs: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for image in images:
        found = [*named.get(image.stem, ()), *named.get(f"{image.stem}_mask", ())]
        if not found:
            continue
        if stems[image.stem] > 1:
            other = next(path for path in images if path.stem == image.stem and path != image)
            raise DataError(f"{found[0]}: this mask can be that of {image.name} or of {other.name}; rename one of them")
        if len(found) > 1:
            raise DataError(f"{image}: has two masks, {found[0]} and {found[1]}; remove one of them")
        if found[0] in taken:
            names = f"{taken[found[0]].name} or of {image.name}"
            raise DataError(f"{found[0]}: this mask can be that of {names}; rename one of them")
        pairs[image] = found[0]
        taken[found[0]] = image
    return pairs


def _check_layout(layout: str) -> None:
    if layout not in get_args(Layout):
        raise ParameterError(f"layout: must be one of {', '.join(get_args(Layout))}, got {layout!r}")


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder ({what}); check the root, the class name and the layout")
    return path


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _images(folder: Path, what: str, notes: list[str]) -> list[Path]:
    found = images_of(_folder(folder, what))
    if found.notable:
        notes.append(f"{folder}: passed over: {found.passed_over()}")
    return sorted(found.images)
