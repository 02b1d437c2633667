"""Labelled data sets on disk, and the training sets of the paper's protocol (ALGORITHM section 7).

The layout ``mvtec``::

    ROOT/CLASS/train/good/000.png   ROOT/CLASS/test/TYPE/000.png   ROOT/CLASS/ground_truth/TYPE/000_mask.png

The layout ``folder`` is for unsorted images; those with a mask are defective::

    ROOT/CLASS/train/*.png   ROOT/CLASS/test/*.png   ROOT/CLASS/masks/{train,test}/NAME.png

If the class name is empty, ROOT is the class. Files are sorted by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..array_types import BoolArray
from ..errors import DataError, EmptyFolderError, ImageError, ParameterError
from .supplement import corruption_list

Layout = Literal["mvtec", "folder"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})


@dataclass(frozen=True)
class Sample:
    """One image: its file, its name within its split (``"crack/007.png"``), and its mask if it is defective."""

    path: Path
    name: str
    mask_path: Path | None = None

    @property
    def defective(self) -> bool:
        return self.mask_path is not None


@dataclass(frozen=True)
class Dataset:
    """One class: its training images (good ones in MVTec's layout) and its test images."""

    root: Path
    class_name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


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
    names = sorted(p.name for p in base.iterdir() if (p / train).is_dir() and (p / "test").is_dir())
    if not names:
        expected = f"{layout} layout: CLASS/{train.as_posix()} and CLASS/test"
        raise EmptyFolderError(f"{base}: no class folder in it ({expected}); give the folder that holds the classes")
    return names


def read_dataset(root: str | Path, class_name: str, *, layout: Layout = "mvtec") -> Dataset:
    """Lists the images and masks of one class; the layouts are described above.

    Raises:
        DataError: a folder, or the mask of a defective MVTec image, is missing. EmptyFolderError: no image in a folder.
    """
    _check_layout(layout)
    base = _folder(Path(root) / class_name if class_name else Path(root), f"class {class_name!r}")
    train, test = (_read_mvtec if layout == "mvtec" else _read_folder)(base)
    return Dataset(Path(root), class_name or base.name, tuple(train), tuple(test))


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


def read_mask(sample: Sample) -> BoolArray | None:
    """The sample's ground truth: bool (H, W), True is defect; None without a mask. Raises ImageError."""
    if sample.mask_path is None:
        return None
    try:
        with Image.open(sample.mask_path) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageError(f"{sample.mask_path}: the mask cannot be read ({error}); replace or remove it") from error
    if pixels.ndim == 3:  # without the alpha channel, which is 255 everywhere
        return np.asarray(pixels[..., : 1 if pixels.shape[2] == 2 else 3].any(axis=2))
    return np.asarray(pixels != 0)


def _read_mvtec(base: Path) -> tuple[list[Sample], list[Sample]]:
    good = _images(base / "train" / "good", "the good training images")
    train = [Sample(path, f"good/{path.name}") for path in good]
    folder = _folder(base / "test", "the test images")
    kinds = sorted(p for p in folder.iterdir() if p.is_dir())
    if not kinds:
        raise EmptyFolderError(f"{folder}: holds no folder of test images (good and one for each defect type)")
    test: list[Sample] = []
    for kind in kinds:
        paths = _images(kind, "test images")
        if kind.name == "good":
            test += [Sample(path, f"good/{path.name}") for path in paths]
            continue
        truth = _folder(base / "ground_truth" / kind.name, f"the masks of test/{kind.name}")
        for path in paths:
            mask = truth / f"{path.stem}_mask.png"
            if not mask.is_file():
                raise DataError(f"{mask}: missing; the defective test image {path} needs its mask")
            test.append(Sample(path, f"{kind.name}/{path.name}", mask))
    return train, test


def _read_folder(base: Path) -> tuple[list[Sample], list[Sample]]:
    splits: list[list[Sample]] = []
    for split in ("train", "test"):
        folder = base / "masks" / split
        masks = {p.stem: p for p in (_sorted_images(folder) if folder.is_dir() else [])}
        paths = _images(base / split, f"the {split} images")
        splits.append([Sample(path, path.name, masks.pop(path.stem, None)) for path in paths])
        if masks:
            stray = min(masks.values())
            raise DataError(f"{stray}: this mask has no image of its name in {base / split}; rename or remove it")
    return splits[0], splits[1]


def _check_layout(layout: str) -> None:
    if layout not in get_args(Layout):
        raise ParameterError(f"layout: must be one of {', '.join(get_args(Layout))}, got {layout!r}")


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder ({what}); check the root, the class name and the layout")
    return path


def _sorted_images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())


def _images(folder: Path, what: str) -> list[Path]:
    found = _sorted_images(_folder(folder, what))
    if not found:
        raise EmptyFolderError(f"{folder}: holds no image ({', '.join(sorted(_SUFFIXES))})")
    return found
