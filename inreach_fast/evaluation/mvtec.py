"""Labelled data sets on disk, and the training sets that the paper's protocol makes of them (ALGORITHM
section 7).

Two layouts. ``mvtec``, of one class::

    ROOT/CLASS/train/good/000.png   ROOT/CLASS/test/TYPE/000.png   ROOT/CLASS/ground_truth/TYPE/000_mask.png

``folder``, for unsorted images of one's own, where an image that has a mask is a defective one::

    ROOT/CLASS/train/*.png   ROOT/CLASS/test/*.png   ROOT/CLASS/masks/train/NAME.png
    ROOT/CLASS/masks/test/NAME.png

(With an empty class name, ROOT itself is the class.) Files are taken in the order of their names, so that a
data set reads the same on every machine. Nothing is decoded here except in `read_mask`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, EmptyFolderError, ImageError, ParameterError
from .supplement import corruption_list

Layout = Literal["mvtec", "folder"]
LAYOUTS: tuple[str, ...] = ("mvtec", "folder")

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True)
class Sample:
    """One image of a data set: its file, its name within its split (``"crack/007.png"``), and its truth."""

    path: Path
    name: str
    kind: str
    defective: bool
    mask_path: Path | None


@dataclass(frozen=True)
class Dataset:
    """One class: its own training images (good ones in MVTec's layout) and its test images, each in name
    order.
    """

    root: Path
    class_name: str
    layout: Layout
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


@dataclass(frozen=True)
class TrainingSet:
    """What `fit` gets, in its order. ``from_test[i]`` says that sample i was added from the test set (a
    corruption).
    """

    samples: tuple[Sample, ...]
    from_test: tuple[bool, ...]
    shuffle: int | None

    @property
    def paths(self) -> list[Path]:
        """The files in the fit's order."""
        return [sample.path for sample in self.samples]

    @property
    def overlap(self) -> frozenset[str]:
        """Names of the test images that are in the training set too."""
        return frozenset(s.name for s, added in zip(self.samples, self.from_test, strict=True) if added)

    @property
    def defective(self) -> int:
        """How many training images are defective; the supplement's lists hold some good test images, which
        are not.
        """
        return sum(sample.defective for sample in self.samples)


def list_classes(root: str | Path, *, layout: Layout = "mvtec") -> list[str]:
    """Names of the class folders below root (those with ``train`` and ``test`` inside), sorted.

    Raises DataError when root is no folder, EmptyFolderError when it holds no class.
    """
    base = _folder(Path(root), "the data set's root")
    _check_layout(layout)
    train = Path("train", "good") if layout == "mvtec" else Path("train")
    names = sorted(p.name for p in base.iterdir() if (p / train).is_dir() and (p / "test").is_dir())
    if not names:
        raise EmptyFolderError(
            f"{base}: no class folder in it ({layout} layout: CLASS/{train.as_posix()} and CLASS/test); "
            "give the folder that holds the classes"
        )
    return names


def read_dataset(root: str | Path, class_name: str, *, layout: Layout = "mvtec") -> Dataset:
    """List one class's images and masks; see the module's head for the layouts.

    Raises DataError naming the folder that is missing, EmptyFolderError naming the one that holds no image,
    DataError naming the defective MVTec image whose mask is missing.
    """
    _check_layout(layout)
    base = _folder(Path(root) / class_name if class_name else Path(root), f"class {class_name!r}")
    read = _read_mvtec if layout == "mvtec" else _read_folder
    train, test = read(base)
    return Dataset(Path(root), class_name or base.name, layout, tuple(train), tuple(test))


def make_training_set(dataset: Dataset, *, corrupt: int = 0, shuffle: int | None = None) -> TrainingSet:
    """The training list: the class's own images, then the first ``corrupt`` of its list in the supplement's
    Tables 4 to 6.

    corrupt: 0 to 40 (the paper has 0, 10 and 40). shuffle: None keeps the authors' order, corruptions last; a
    seed puts the whole list in the order of ``numpy.random.default_rng(seed).permutation``. The corruptions
    stay in the test set too; `TrainingSet.overlap` names them.

    Raises ParameterError for corrupt outside 0..40, DataError for a class without a list or a listed file
    that is absent.
    """
    if isinstance(corrupt, bool) or not isinstance(corrupt, int) or not 0 <= corrupt <= 40:
        raise ParameterError(f"corrupt: must be an integer from 0 to 40 (the paper uses 0, 10, 40), got {corrupt!r}")
    added: list[Sample] = []
    if corrupt:
        by_name = {sample.name: sample for sample in dataset.test}
        for name in corruption_list(dataset.class_name)[:corrupt]:
            if name not in by_name:
                raise DataError(
                    f"{dataset.root / dataset.class_name / 'test' / name}: missing, but the supplement's "
                    f"corruption list of {dataset.class_name!r} names it; keep MVTec AD's file names"
                )
            added.append(by_name[name])
    samples = [*dataset.train, *added]
    from_test = [False] * len(dataset.train) + [True] * len(added)
    if shuffle is not None:
        if isinstance(shuffle, bool) or not isinstance(shuffle, int) or shuffle < 0:
            raise ParameterError(f"shuffle: must be None or a seed of at least 0, got {shuffle!r}")
        order = np.random.default_rng(shuffle).permutation(len(samples))
        samples = [samples[i] for i in order]
        from_test = [from_test[i] for i in order]
    return TrainingSet(tuple(samples), tuple(from_test), shuffle)


def read_mask(sample: Sample) -> NDArray[np.bool_] | None:
    """The sample's ground truth in its file's own frame: bool (H,W), True is defect; None for an image
    without a mask.

    Raises ImageError naming the mask that cannot be read.
    """
    if sample.mask_path is None:
        return None
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(sample.mask_path) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageError(f"{sample.mask_path}: the mask cannot be read ({error}); replace or remove it") from error
    if pixels.ndim == 3:
        # Colour channels only: an alpha channel is 255 everywhere and says nothing of defects.
        colours = pixels[..., : 1 if pixels.shape[2] == 2 else 3]
        return np.asarray(colours.any(axis=2))
    return np.asarray(pixels != 0)


def _read_mvtec(base: Path) -> tuple[list[Sample], list[Sample]]:
    good = _folder(base / "train" / "good", "the good training images")
    train = [Sample(path, f"good/{path.name}", "good", False, None) for path in _images(good)]
    test_folder = _folder(base / "test", "the test images")
    kinds = sorted(p for p in test_folder.iterdir() if p.is_dir())
    if not kinds:
        raise EmptyFolderError(f"{test_folder}: holds no folder of test images (good and one for each defect type)")
    test: list[Sample] = []
    for kind in kinds:
        if kind.name == "good":
            test += [Sample(path, f"good/{path.name}", "good", False, None) for path in _images(kind)]
            continue
        truth = _folder(base / "ground_truth" / kind.name, f"the masks of test/{kind.name}")
        for path in _images(kind):
            mask = truth / f"{path.stem}_mask.png"
            if not mask.is_file():
                raise DataError(f"{mask}: missing; the defective test image {path} needs its mask")
            test.append(Sample(path, f"{kind.name}/{path.name}", kind.name, True, mask))
    return train, test


def _read_folder(base: Path) -> tuple[list[Sample], list[Sample]]:
    splits: list[list[Sample]] = []
    for split in ("train", "test"):
        masks = {p.stem: p for p in _sorted_images(base / "masks" / split)}
        samples = []
        for path in _images(_folder(base / split, f"the {split} images")):
            mask = masks.pop(path.stem, None)
            samples.append(Sample(path, path.name, "good" if mask is None else "defect", mask is not None, mask))
        if masks:
            stray = sorted(masks.values())[0]
            raise DataError(f"{stray}: this mask has no image of its name in {base / split}; rename or remove it")
        splits.append(samples)
    return splits[0], splits[1]


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise ParameterError(f"layout: must be one of {', '.join(LAYOUTS)}, got {layout!r}")


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder ({what}); check the root, the class name and the layout")
    return path


def _sorted_images(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())


def _images(folder: Path) -> list[Path]:
    found = list(_sorted_images(folder))
    if not found:
        raise EmptyFolderError(f"{folder}: holds no image ({', '.join(sorted(_SUFFIXES))})")
    return found
