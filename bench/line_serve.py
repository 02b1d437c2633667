"""`inreach serve` under load: right answers, hostile bodies, latencies, memory.

`python -m bench.line_serve --requests 10000 --clients 16` starts the service on a free port of this machine. Clients
send images (as bodies and as forms, some with a picture asked for) and, one in five, something hostile: no image, a
bomb, half a file, too large a body, a broken form, half a request, no HTTP. Each answer is compared with
`InReaCh.predict`, or with the refusal that is due. Prints JSON; exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from inreach_fast import InReaCh

from . import line_cases as cases

MAX_BODY = 1_000_000
_FORM = "multipart/form-data; boundary=XX"
_TIMEOUT = 120.0


class Hostile(NamedTuple):
    """A request that must be refused, and the status of the refusal."""

    name: str
    status: int
    body: bytes
    headers: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="requests in all (default: 10000)")
    parser.add_argument("--clients", type=int, default=16, help="clients at a time (default: 16)")
    parser.add_argument("--workers", type=int, default=2, help="workers of the service (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)  # the last bits of features depend on it
    with tempfile.TemporaryDirectory() as folder:
        found = load(
            Path(folder), args.requests, args.clients, workers=args.workers, threads=args.threads, seed=args.seed
        )
    first, last = found["resident_mb"]
    if first is not None and last > 1.1 * first + 20:
        found["wrong"].append(f"resident memory grew from {first} to {last} MB")
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["wrong"] else 0)


def load(
    folder: Path, requests: int, clients: int, *, workers: int = 2, threads: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Sends ``requests`` requests from ``clients`` threads.

    Returns:
        "statuses"; "milliseconds": of images without a picture, as the clients saw them: median, p99, p99.9, longest,
        and p99 over the median; "resident_mb": of the service after a tenth of the requests and at the end (None where
        the system does not say); "wrong": answers that were not as they should be; "images_per_second"; "health": the
        service's own account.
    """
    path = cases.saved_model(folder)
    good = cases.good_cases(InReaCh.load(path))
    hostile = hostile_requests(good[0])
    options: tuple[object, ...] = ("--max-body", MAX_BODY, "--max-pixels", 50_000_000, "--workers", workers)
    if threads is not None:
        options += ("--threads", threads)
    with _service(path, options, folder / "log") as (process, port):
        run = _Run(port, good, hostile, requests, process.pid, seed)
        begun = time.monotonic()
        running = [threading.Thread(target=run.client, args=(number,)) for number in range(clients)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        seconds = time.monotonic() - begun
        run.resident.append(resident_mb(process.pid))
        health = json.loads(_get(port, "/health"))
        metrics = _get(port, "/metrics").decode()
        if f'inreach_inspections_total{{verdict="anomalous"}} {health["anomalous"]}' not in metrics.splitlines():
            run.wrong.append("/metrics and /health differ in the anomalous images")
        if health["inspected"] != run.inspected:
            run.wrong.append(f"/health: {health['inspected']} inspected, clients had {run.inspected} verdicts")
        process.send_signal(signal.SIGTERM)
        code = process.wait(_TIMEOUT)
        if code != 0:
            run.wrong.append(f"SIGTERM: exit code {code}")
    took = sorted(run.took)
    median, p99 = _quantile(took, 0.5), _quantile(took, 0.99)
    return {
        "requests": requests,
        "clients": clients,
        "statuses": dict(sorted(run.statuses.items())),
        "hostile": dict(sorted(run.sent.items())),
        "milliseconds": {
            "median": median,
            "p99": p99,
            "p99.9": _quantile(took, 0.999),
            "longest": _quantile(took, 1.0),
            "p99_over_median": round(p99 / median, 2),
        },
        "resident_mb": run.resident,
        "images_per_second": round(run.inspected / seconds),
        "health": health,
        "wrong": run.wrong[:20],
    }


def hostile_requests(good: cases.Case) -> list[Hostile]:
    """What must be refused. "half a request" and "no HTTP" are sent by `_Run` itself."""
    plain, form = {"Content-Type": "application/octet-stream"}, {"Content-Type": _FORM}
    bomb = bytearray(good.content)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # IHDR's width and height; its checksum is wrong as well
    head = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    field = b'--XX\r\nContent-Disposition: form-data; name="image"\r\n\r\nwords\r\n--XX--\r\n'
    return [
        Hostile("empty", 400, b"", plain),
        Hostile("empty form", 400, b"", form),
        Hostile("text", 415, b"hello", {"Content-Type": "text/plain"}),
        Hostile("JSON", 415, b"{}", {"Content-Type": "application/json"}),
        Hostile("no image", 422, b"hello " * 1000, plain),
        Hostile("half an image", 422, cases.truncated(good).content, {"Content-Type": "image/png"}),
        Hostile("damaged header", 422, bytes(bomb), {"Content-Type": "image/png"}),
        Hostile("bomb", 413, cases.png_of_zeros(20_000, 20_000), {"Content-Type": "image/png"}),
        Hostile("too large", 413, b"x" * (MAX_BODY + 1), plain),
        Hostile("form without boundary", 400, head + good.content, {"Content-Type": "multipart/form-data"}),
        Hostile("form of another boundary", 400, head + good.content, {"Content-Type": f"{_FORM}X"}),
        Hostile("form without a file", 400, field, form),
        Hostile("half a form", 400, head + good.content, form),
        Hostile("form of no image", 422, head + b"hello\r\n--XX--\r\n", form),
    ]


class _Run:
    """The clients and what they found."""

    def __init__(
        self, port: int, good: list[cases.Case], hostile: list[Hostile], requests: int, pid: int, seed: int
    ) -> None:
        self.took: list[float] = []  # seconds
        self.statuses: Counter[int] = Counter()
        self.sent: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.resident: list[float | None] = []
        self.inspected = 0
        self._port, self._good, self._hostile = port, good, hostile
        self._left, self._tenth, self._pid, self._seed = requests, requests - requests // 10, pid, seed
        self._lock = threading.Lock()

    def client(self, number: int) -> None:
        """One client, with a connection that it keeps."""
        generator = random.Random(1000 * self._seed + number)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
        while self._another():
            try:
                if generator.random() < 0.2:
                    connection = self._send_hostile(connection, generator)
                else:
                    self._send_image(connection, generator)
            except Exception as error:  # any failure is a finding
                with self._lock:
                    self.wrong.append(f"client: {error!r}")
                connection.close()
        connection.close()

    def _another(self) -> bool:
        with self._lock:
            self._left -= 1
            measure = self._left == self._tenth
        if measure:
            self.resident.append(resident_mb(self._pid))
        return self._left >= 0

    def _send_image(self, connection: http.client.HTTPConnection, generator: random.Random) -> None:
        case = generator.choice(self._good)
        body, kind = case.content, f"image/{case.suffix[1:]}"
        if generator.random() < 0.3:
            head = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
            body, kind = head + body + b"\r\n--XX--\r\n", _FORM
        with_map = generator.random() < 0.05
        begun = time.perf_counter()
        connection.request("POST", "/inspect" + "?map=1" * with_map, body, {"Content-Type": kind})
        response = connection.getresponse()
        answer = json.loads(response.read())
        seconds = time.perf_counter() - begun
        right = response.status == 200 and answer["score"] == case.score
        right = right and answer["is_anomalous"] == (answer["score"] > answer["threshold"])
        right = right and (not with_map or answer["map"].startswith("data:image/png;base64,iVBOR"))
        with self._lock:
            self.statuses[response.status] += 1
            self.inspected += response.status == 200
            if not with_map:
                self.took.append(seconds)
            if not right:
                self.wrong.append(f"an image: {response.status} {str(answer)[:200]}, predict has {case.score}")

    def _send_hostile(
        self, connection: http.client.HTTPConnection, generator: random.Random
    ) -> http.client.HTTPConnection:
        choice = generator.randrange(len(self._hostile) + 2)
        if choice >= len(self._hostile):
            what = ("half a request", "no HTTP")[choice - len(self._hostile)]
            with self._lock:
                self.sent[what] += 1
            with socket.create_connection(("127.0.0.1", self._port), _TIMEOUT) as bare:
                if what == "half a request":
                    bare.sendall(b"POST /inspect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
                else:
                    bare.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
                    bare.recv(4096)
            return connection
        sent = self._hostile[choice]
        connection.request("POST", "/inspect", sent.body, sent.headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        with self._lock:
            self.sent[sent.name] += 1
            self.statuses[response.status] += 1
            if response.status != sent.status or not answer.get("error") or not answer.get("kind"):
                self.wrong.append(f"{sent.name}: {response.status} {str(answer)[:200]}, due was {sent.status}")
        return connection


@contextmanager
def _service(model: Path, options: tuple[object, ...], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The service, ready, and its port."""
    with (
        log.open("wb") as events,
        subprocess.Popen(
            cases.command("serve", model, "--port", 0, *options),
            cwd=log.parent,  # the repository's root would hide an installed package
            env=cases.environment(),
            stdout=events,
            stderr=events,
        ) as process,
    ):
        try:
            until = time.monotonic() + _TIMEOUT
            while not ((port := _port_in(log)) and _is_ready(port)):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the service did not become ready: {log.read_text(encoding='utf-8')}")
                time.sleep(0.1)
            yield process, port
        finally:
            if process.poll() is None:
                process.kill()


def _port_in(log: Path) -> int:
    """The port of the event "listening"; 0 before it."""
    found = re.search(r'"listening", .*"url": "http://127\.0\.0\.1:(\d+)/"', log.read_text(encoding="utf-8"))
    return int(found[1]) if found else 0


def _is_ready(port: int) -> bool:
    try:
        return bool(json.loads(_get(port, "/health"))["ready"])
    except OSError:
        return False


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process, on Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS:")), None)


def _quantile(ordered: list[float], q: float) -> float:
    """In milliseconds."""
    return round(1e3 * ordered[max(math.ceil(q * len(ordered)) - 1, 0)], 2) if ordered else math.nan


if __name__ == "__main__":
    main()
