"""Time of a query, and memory, against the size of the bank: 10^4 to 3*10^6 patches of real pictures, and noise.

The rows are in one raw file on disk, and a bank is its first n rows, so that banks grow as a model does. Half of the
pictures are originals as long as there are any, half are cut from them (varied_images.py). Every contestant has its own
process (scale_child.py); they take turns. Ours maps rows and index from disk. Peers hold their data in memory and take
part up to a size that fits the memory and takes a bearable time.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inreach_fast import kernels

from . import approximate, exact, panorama, peers
from .children import Child
from .records import Case, timed_case, value_case
from .scale_child import BUILD
from .search import RANDOM
from .timing import OURS, race
from .varied_images import VariedImages
from .workload import Workload, random_rows, scratch_folder

Rows = npt.NDArray[np.float32]

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)
QUICK_SIZES = (3_000, 10_000)
FROM, TO, GROWTH = 30_000, 3_000_000, 25.0
RESIDENT_GB = 2.0
# Largest bank that each peer searches.
PEERS = {
    peers.FAISS: 1_000_000,
    panorama.NAME: 300_000,
    approximate.HNSW: 300_000,
    approximate.IVF: 300_000,
    peers.TORCH: 30_000,
    peers.SKLEARN: 30_000,
}
NOISE_LARGEST, NOISE_QUERIES = 1_000_000, 784
_QUERY_IMAGES = 2
_CHECKED = 16


def run(
    work: Workload,
    *,
    quick: bool = False,
    keep: bool = False,
    sizes: Sequence[int] | None = None,
    scratch: Path | None = None,
    noise: bool = True,
) -> list[Case]:
    """A case for each size and kind of data, then growth and memory.

    Args:
        work: backbone and descriptors.
        quick: two small sizes.
        keep: keep the file of the rows for the next run (12 GB at 3,000,000 rows); the index is always removed.
        sizes: instead of what ``quick`` implies, ascending.
        scratch: folder for all of it.
        noise: isotropic noise as well.
    """
    sizes = tuple(sizes or (QUICK_SIZES if quick else SIZES))
    scratch = scratch or scratch_folder()
    scratch.mkdir(parents=True, exist_ok=True)
    rows_file, queries, images = descriptor_files(work, sizes[-1], scratch)
    features = f"{work.backbone.name} of {images}"
    try:
        cases = _of_one_kind(features, rows_file, queries, sizes, scratch, quick)
    finally:
        if not keep:
            rows_file.unlink()
    if noise:
        fitting = [size for size in sizes if size <= NOISE_LARGEST]
        rows_file, noise_queries = noise_files(fitting[-1], queries.shape[1], scratch)
        try:
            cases += _of_one_kind(RANDOM, rows_file, noise_queries, fitting, scratch, quick)
        finally:
            rows_file.unlink()
    return cases


def _of_one_kind(
    data: str, rows_file: Path, queries: Rows, sizes: Sequence[int], scratch: Path, quick: bool
) -> list[Case]:
    cases, medians, last = [], {}, {}
    for size in sizes:
        case, last = _at_size(data, rows_file, queries, size, scratch, quick)
        medians[size] = case["seconds"][OURS]["median"]
        cases.append(case)
    if data == RANDOM:
        return cases
    small, large = (FROM, TO) if FROM in sizes and TO in sizes else (sizes[0], sizes[-1])
    growth = value_case(
        f"growth of time per query, {small} to {large} patches",
        {OURS: medians[large] / medians[small]},
        data=data,
        unit="x",
        limits={OURS: GROWTH} if (small, large) == (FROM, TO) else None,
        checks={"the bank grows": f"{large / small:g}x"},
    )
    return [*cases, growth, _memory_case(data, sizes[-1], queries.shape[1], last)]


def _memory_case(data: str, size: int, dim: int, reply: dict[str, Any]) -> Case:
    kinds = {"peak": "peak, resident (VmHWM)", "resident": "after the searches, resident (VmRSS)"}
    kinds |= {"anonymous": "of which anonymous (RssAnon)", "files": "of which mapped files (RssFile)"}
    return value_case(
        f"memory of a process that searches {size} patches, model on disk",
        {words: reply[kind] / 1e9 for kind, words in kinds.items()},
        data=data,
        unit="GB",
        limits={kinds["peak"]: RESIDENT_GB} if size >= TO else None,
        checks={
            "rows on disk": f"{size * dim * 4 / 1e9:.3g} GB",
            "index on disk": f"{reply['build']['bytes'] / 1e9:.3g} GB" if reply["build"] else "none",
            "index built in": f"{reply['build']['seconds']:.1f} s" if reply["build"] else "memory, at the first search",
            "peak while it was built": f"{(reply['build']['before'] + reply['build']['peak']) / 1e9:.3g} GB"
            if reply["build"]
            else "",
            "imported": ", ".join(reply["modules"]) or "neither torch nor faiss",
        },
        bytes=reply,
    )


def _at_size(
    data: str, rows_file: Path, queries: Rows, size: int, scratch: Path, quick: bool
) -> tuple[Case, dict[str, Any]]:
    """The race at one size; and our process's last reply, with "build"."""
    place = scratch / "scale"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    queries_file, answers = place / "queries.f32", place / "answers.npz"
    queries.tofile(queries_file)
    files = {
        "--rows": rows_file, "--count": size, "--dim": queries.shape[1], "--queries": queries_file,
        "--index": place / "index", "--answers": answers, "--scratch": scratch,
    }  # fmt: skip
    built = None
    if hasattr(kernels.Bank, "index_arrays"):
        with _child(BUILD, files) as child:
            built = child.reply
    children: dict[str, Child] = {}
    try:
        children[OURS] = _child(OURS, files)
        first = children[OURS].ask()
        for name in _peers(data, size):
            children[name] = _child(name, files)
        words = {name: child.reply["words"] for name, child in children.items() if name != OURS}
        rounds, warm = _effort(size, data, quick)
        contestants = {name: child.ask for name, child in children.items()}
        seconds = race(contestants, rounds=rounds, budget=60, warm=contestants if warm else [])
        reply = {**children[OURS].reply, "build": built}
        settings = {name: text for name, text in words.items() if text}
    finally:
        for child in children.values():
            child.close()
    case = timed_case(
        f"nearest, {len(queries)} x {size} x {queries.shape[1]}, model on disk",
        seconds,
        data=data,
        goals={peers.FAISS: 0.95} if data == RANDOM else {peers.FAISS: 1.0},
        checks={
            **_check(queries, rows_file, size, answers),
            "first search": f"{first['seconds']:.2f} s",
            "resident": f"{reply['resident'] / 1e9:.2f} GB",
            **settings,
        },
        counts=reply.get("counts"),
        rows=size,
        queries=len(queries),
        memory=reply,
    )
    shutil.rmtree(place)
    return case, reply


def _child(contestant: str, files: dict[str, Any]) -> Child:
    return Child("bench.scale_child", [contestant, *(part for pair in files.items() for part in pair)])


def _peers(data: str, size: int) -> list[str]:
    if data == RANDOM:
        return [peers.FAISS]
    wanted = [name for name, largest in PEERS.items() if size <= largest]
    return [name for name in wanted if name != panorama.NAME or panorama.available()]


def _effort(size: int, data: str, quick: bool) -> tuple[int, bool]:
    if quick:
        return 2, True
    if size >= 1_000_000:
        return (2, False) if data == RANDOM else (3, False)
    return (3, False) if size >= 300_000 else (5, True)


def _check(queries: Rows, rows_file: Path, size: int, answers: Path) -> dict[str, str]:
    found = np.load(answers)
    bank = np.memmap(rows_file, dtype=np.float32, mode="r", shape=(size, queries.shape[1]))
    rows = exact.sample(len(queries), _CHECKED)
    index, distance = exact.nearest(queries[rows], bank)
    right = (found["index"][rows] == index) & (found["sq_distance"][rows] == distance)
    return {"equal to float64 brute force, index and bits": f"{int(right.sum())} of {len(rows)}"}


def descriptor_files(work: Workload, rows: int, scratch: Path) -> tuple[Path, Rows, str]:
    """A raw float32 file of at least ``rows`` descriptors (an earlier run's, if it was kept), queries, and words.

    Queries (m, D) are all descriptors of one unseen original of each class.
    """
    tests = VariedImages(64, folder="test", seed=1, originals=1.0)
    queries = np.concatenate([work.describe(tests[i]) for i in _two_kinds(tests)])
    patches, dim = len(queries) // _QUERY_IMAGES, queries.shape[1]
    count = -(-rows // patches)
    pictures = VariedImages(count, originals=0.5)
    path = scratch / f"descriptors-{work.backbone.fingerprint[:12]}-{work.image_size}-{count}.f32"
    if not path.is_file() or path.stat().st_size != count * patches * dim * 4:
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            for i in range(count):
                work.describe(pictures[i]).tofile(file)
        partial.replace(path)
    return path, np.ascontiguousarray(queries), pictures.words


def _two_kinds(tests: VariedImages) -> list[int]:
    first = tests.kind(0)
    other = next((i for i in range(1, len(tests)) if tests.kind(i) != first), 1)
    return [0, other]


def noise_files(rows: int, dim: int, scratch: Path) -> tuple[Path, Rows]:
    """A raw float32 file of isotropic normal rows, and queries of the same kind."""
    path, block = scratch / f"noise-{rows}.f32", 50_000
    with path.open("wb") as file:
        for number, start in enumerate(range(0, rows, block)):
            random_rows(min(block, rows - start), dim, seed=100 + number).tofile(file)
    return path, random_rows(NOISE_QUERIES, dim, seed=1)
