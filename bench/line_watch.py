"""`inreach watch` under SIGKILL: is each image reported once, and rightly?

`python -m bench.line_watch --images 10000 --kills 20` lets files arrive in a folder (there from the start, renamed into
place, written in two pieces; one in a hundred is cut off), kills the watching process again and again, and compares the
journal with `InReaCh.predict`. Prints JSON; exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, TextIO, cast

import torch

from inreach_fast import InReaCh
from inreach_fast.serving.verdicts import NAME

from . import line_cases as cases

_BAD = 100  # one file in so many is cut off
_PATIENCE = 600.0  # seconds without a new verdict after which the bench gives up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="files that arrive (default: 10000)")
    parser.add_argument("--kills", type=int, default=20, help="times that the process is killed (default: 20)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)  # the last bits of features depend on it
    with tempfile.TemporaryDirectory() as folder:
        found = watch_with_kills(Path(folder), args.images, args.kills, threads=args.threads, seed=args.seed)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["wrong"] else 0)


def watch_with_kills(
    folder: Path, images: int, kills: int, *, threads: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Lets ``images`` files arrive while the process that watches is killed ``kills`` times.

    Returns:
        "reported": lines of the journal about whole files; "early": about files whose writing paused for longer than
        the time to settle; "bad": those with an error; "lives": lines of each process; "cut": half-written lines that a
        process found; "wrong": what was not as it should be; "seconds".
    """
    begun, generator = time.monotonic(), random.Random(seed)
    model = cases.saved_model(folder)
    good = cases.good_cases(InReaCh.load(model))
    files = {}
    for number in range(images):
        case = good[number % len(good)]
        files[f"{number:06d}{case.suffix}"] = cases.truncated(case) if number % _BAD == 7 else case
    place, out = folder / "arriving", folder / "verdicts"
    place.mkdir()
    feeder = _Feeder(place, files)
    feeder.start()

    journal, lives, cut = out / NAME, list[int](), 0
    wrong: list[str] = []
    extra = () if threads is None else ("--threads", threads)
    for life in range(kills + 1):
        last, reported = life == kills, _lines(journal)
        # Each process finds work, and leaves some to the next.
        target = (
            images if last else reported + round(generator.uniform(0.5, 1.0) * (images - reported) / (kills + 1 - life))
        )
        feeder.allowed = min(target + max(images // 10, 4), images)
        arguments = ("watch", model, place, "--out", out, "--poll", 0.1, "--settle", 0.2, *extra)
        with subprocess.Popen(
            cases.command(*arguments),
            cwd=folder,  # the repository's root would hide an installed package
            env=cases.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            events = _Events(process)
            found = _wait_for_lines(journal, target, process)
            if last:
                process.send_signal(signal.SIGTERM)
            else:
                time.sleep(generator.uniform(0.0, 0.02))  # anywhere between two lines
                process.kill()
            code = process.wait()
            events.join()
        if last and code != 0:
            wrong.append(f"SIGTERM: exit code {code}: {events.latest}")
        if found < target:
            wrong.append(f"process {life}: {found} of {target} lines, then nothing more: {events.latest}")
            break
        cut += events.cut
        lives.append(_lines(journal) - reported)
    feeder.allowed = images
    feeder.join()
    rows = [json.loads(line) for line in journal.read_bytes().splitlines()]
    whole = [row for row in rows if row["version"].partition("-")[0] == str(len(files[row["file"]].content))]
    wrong += _differences(whole, files)
    return {
        "images": images,
        "reported": len(whole),
        "early": len(rows) - len(whole),
        "bad": sum("error" in row for row in whole),
        "kills": kills,
        "lives": lives,
        "cut": cut,
        "wrong": wrong[:20],
        "seconds": round(time.monotonic() - begun, 1),
    }


class _Feeder(threading.Thread):
    """Lets files arrive: renamed into place, written at once, or in two pieces; ``allowed``: how many so far."""

    def __init__(self, place: Path, files: dict[str, cases.Case]) -> None:
        super().__init__(daemon=True)
        self.allowed = 0
        self._place, self._files = place, files

    def run(self) -> None:
        for number, (name, case) in enumerate(self._files.items()):
            while number >= self.allowed:
                time.sleep(0.01)
            path, content = self._place / name, case.content
            if number % 3 == 0:
                aside = self._place / f".{name}.part"
                aside.write_bytes(content)
                aside.replace(path)
            elif number % 3 == 1:
                path.write_bytes(content)
            else:
                with path.open("wb") as file:
                    file.write(content[:100])
                    file.flush()
                    time.sleep(0.002)
                    file.write(content[100:])


class _Events(threading.Thread):
    """Reads what a process logs: the latest lines, and how many half-written lines it cut off."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.latest: deque[str] = deque(maxlen=3)
        self.cut = 0
        self._stream = cast(TextIO, process.stderr)
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self.latest.append(line)
            self.cut += '"event": "cut"' in line


def _wait_for_lines(journal: Path, target: int, process: subprocess.Popen[str]) -> int:
    """Waits until the journal has so many lines; returns how many it has. Fewer if nothing happens any more."""
    count, since = _lines(journal), time.monotonic()
    while count < target and process.poll() is None and time.monotonic() - since < _PATIENCE:
        time.sleep(0.02)
        new = _lines(journal)
        count, since = new, since if new == count else time.monotonic()
    return count


def _lines(journal: Path) -> int:
    try:
        return journal.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _differences(rows: list[dict[str, Any]], files: dict[str, cases.Case]) -> list[str]:
    """What the journal says that it should not, or does not say."""
    counts = Counter(row["file"] for row in rows)
    wrong = [f"{name}: {counts[name]} lines" for name in files if counts[name] != 1]
    wrong += [f"{name}: did not arrive" for name in counts if name not in files]
    for row in rows:
        case = files.get(row["file"])
        if case is not None and row.get("score") != case.score:
            wrong.append(f"{row['file']}: score {row.get('score')}, predict has {case.score}")
    return wrong


if __name__ == "__main__":
    main()
