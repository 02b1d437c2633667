"""`inreach watch` under SIGKILL: is each image reported once, and rightly?

`python -m bench.line_watch --images 10000 --kills 20` lets files arrive in a folder (there from the start, renamed into
place, written in two pieces; one in a hundred is cut off), kills the watching process again and again, and compares the
journal with `InReaCh.predict`. Prints JSON; exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from inreach_fast import InReaCh

from . import line_cases as cases

_BAD = 100  # one file in so many is cut off
_PATIENCE = 600.0  # seconds without a new verdict after which the bench gives up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="files that arrive (default: 10000)")
    parser.add_argument("--kills", type=int, default=20, help="times that the process is killed (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = watch_with_kills(Path(folder), args.images, args.kills, seed=args.seed)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["wrong"] else 0)


def watch_with_kills(folder: Path, images: int, kills: int, *, seed: int = 0) -> dict[str, Any]:
    """Lets ``images`` files arrive while the process that watches is killed ``kills`` times.

    Returns:
        "reported": lines of the journal; "bad": those with an error; "lives": images that each process reported;
        "cut": half-written lines that a process found; "wrong": what was not as it should be; "seconds".
    """
    begun, generator = time.monotonic(), random.Random(seed)
    model = cases.saved_model(folder)
    good = cases.good_cases(InReaCh.load(model))
    files = {
        f"{n:06d}": cases.truncated(good[n % len(good)]) if n % _BAD == 7 else good[n % len(good)]
        for n in range(images)
    }
    files = {name + case.suffix: case for name, case in files.items()}
    place, out = folder / "arriving", folder / "verdicts"
    place.mkdir()
    names = list(files)
    for name in names[: images // 4]:
        (place / name).write_bytes(files[name].content)
    feeder = threading.Thread(
        target=_feed, args=(place, {name: files[name] for name in names[images // 4 :]}), daemon=True
    )
    feeder.start()

    journal, lives, cut, reported = out / "verdicts.jsonl", [], 0, 0
    wrong: list[str] = []
    for life in range(kills + 1):
        last = life == kills
        target = (
            images
            if last
            else min(reported + max(1, round(generator.uniform(0.3, 1.3) * images / (kills + 1))), images)
        )
        settings = ("--out", out, "--poll", 0.1, "--settle", 0.2, "--quiet")
        with subprocess.Popen(
            cases.command("watch", model, place, *settings),
            env=cases.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            events: list[str] = []
            listener = threading.Thread(target=lambda p=process, e=events: e.extend(p.stderr), daemon=True)  # type: ignore[misc]
            listener.start()
            now = _wait_for_lines(journal, target, process)
            if last:
                process.send_signal(signal.SIGTERM)
            else:
                time.sleep(generator.uniform(0.0, 0.05))  # anywhere between two lines
                process.kill()
            code = process.wait()
            listener.join()
        if last and code != 0:
            wrong.append(f"SIGTERM: exit code {code}: {events[-3:]}")
        if not last and code == 0:
            wrong.append(f"life {life}: ended by itself: {events[-3:]}")
        cut += sum('"event": "cut"' in line for line in events)
        lives.append(_lines(journal) - reported)
        reported += lives[-1]
        if now < target:
            wrong.append(f"life {life}: {now} of {target} lines, then nothing more: {events[-3:]}")
            break
    feeder.join()
    rows = [json.loads(line) for line in journal.read_bytes().splitlines()]
    wrong += _differences(rows, files)
    return {
        "images": images,
        "reported": len(rows),
        "bad": sum("error" in row for row in rows),
        "kills": kills,
        "lives": lives,
        "cut": cut,
        "wrong": wrong[:20],
        "seconds": round(time.monotonic() - begun, 1),
    }


def _feed(place: Path, files: dict[str, cases.Case]) -> None:
    """Files arrive: renamed into place, written at once, or in two pieces."""
    for number, (name, case) in enumerate(files.items()):
        content = case.content
        if number % 3 == 0:
            (place / f".{name}.part").write_bytes(content)
            os.replace(place / f".{name}.part", place / name)
        elif number % 3 == 1:
            (place / name).write_bytes(content)
        else:
            with (place / name).open("wb") as file:
                file.write(content[:100])
                file.flush()
                time.sleep(0.002)
                file.write(content[100:])


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
