"""The web service, by uvicorn on a free port: right answers, typed refusals, and nothing that a hostile body breaks."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_fits import estimator, pictures

pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra [serve])")
pytest.importorskip("python_multipart", reason="python-multipart is not installed (extra [serve])")

from inreach_fast import InReaCh, Inspector
from inreach_fast.errors import BackboneError, ModelChangedError
from inreach_fast.serving import Inspection, app, server
from inreach_fast.serving.app import ServiceLimits
from inreach_fast.serving.signals import Stop

FORM = "multipart/form-data; boundary=XX"
PNG = {"Content-Type": "image/png"}
HEAD = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="../secret/part.png"\r\n\r\n'


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Requests to the service, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {}, **options)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def post(self, body: Any, headers: dict[str, str] | None = None, path: str = "/inspect", **options: Any) -> Answer:
        return self("POST", path, body, PNG if headers is None else headers, **options)


def draw(inspection: Inspection) -> bytes:
    assert inspection.anomaly_map is not None
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(inspection.anomaly_map, 0, 255))).save(file, format="png")
    return file.getvalue()


@contextmanager
def serving(
    model: InReaCh, limits: ServiceLimits | None = None, *, wait: bool = True, **options: Any
) -> Iterator[Client]:
    """The service in a thread. An error that it ends with is raised at the end."""
    bound, stop, errors = server.listen("127.0.0.1", 0), Stop(), list[Exception]()
    client = Client(bound.getsockname()[1])
    options = {"draw": draw, "limits": limits or ServiceLimits(), **options}

    def run() -> None:
        try:
            server.run_service(Inspector(model, warm=False), bound, stop=stop, **options)
        except Exception as error:
            errors.append(error)

    def is_up() -> bool:
        try:
            return client("GET", "/health").status == 200 or not wait
        except OSError:
            return False

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while thread.is_alive() and not is_up():
            time.sleep(0.01)
        yield client
    finally:
        stop.asked = True
        thread.join(60)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return estimator().fit(pictures())


@pytest.fixture(scope="module")
def client(model: InReaCh) -> Iterator[Client]:
    """A service that accepts 100 kB."""
    with serving(model, ServiceLimits(body=100_000)) as one:
        yield one


def encoded(image: Any, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=kind)
    return file.getvalue()


def good(seed: int = 0) -> bytes:
    return encoded(pictures(1, seed=seed)[0])


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff"])
def test_an_images_answer_is_predicts(model: InReaCh, client: Client, kind: str) -> None:
    image = encoded(pictures(1, seed=5)[0], kind)
    expected = model.predict(image)
    plain = client.post(image, {"Content-Type": "application/octet-stream"}, "/inspect?name=part%207")
    assert plain.status == 200
    row = plain.json
    assert set(row) == {"file", "score", "threshold", "is_anomalous", "seconds"}
    assert (row["file"], row["threshold"]) == ("part 7", model.threshold_)
    assert (row["score"], row["is_anomalous"]) == (expected.score, expected.is_anomalous)
    assert client.post(image, {"Content-Type": f"image/{kind}"}).json["file"] == "the image"
    assert client.post(image, {}).json["score"] == expected.score


def test_a_form_with_a_file(model: InReaCh, client: Client) -> None:
    image = good(6)
    field = b'--XX\r\nContent-Disposition: form-data; name="line"\r\n\r\n7\r\n'
    answer = client.post(field + HEAD + image + b"\r\n--XX--\r\n", {"Content-Type": FORM})
    assert (answer.status, answer.json["score"]) == (200, model.predict(image).score)
    assert answer.json["file"] == "part.png"  # without the folders that the client names


def test_a_body_in_chunks(model: InReaCh, client: Client) -> None:
    image = good(7)
    pieces = (image[i : i + 100] for i in range(0, len(image), 100))
    assert client.post(pieces, encode_chunked=True).json["score"] == model.predict(image).score


def test_the_map_on_demand(client: Client) -> None:
    image = good(8)
    in_json = client.post(image, path="/inspect?map=1").json
    plain = client.post(image, path="/inspect?map=0").json
    alone = client.post(image, {**PNG, "Accept": "image/png"})
    prefix, _, data = in_json.pop("map").partition(",")
    assert prefix == "data:image/png;base64"
    assert "map" not in plain
    assert in_json["score"] == plain["score"] == float(alone.headers["X-InReaCh-Score"])
    assert alone.headers["X-InReaCh-Is-Anomalous"] in ("true", "false")
    assert (alone.headers["Content-Type"], alone.body) == ("image/png", base64.b64decode(data))
    assert Image.open(io.BytesIO(alone.body)).size == (36, 40)  # the image's own frame


BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x01\0\0\0\0"
REFUSED: dict[str, tuple[int, str, bytes, dict[str, str], str]] = {
    "empty": (400, "UploadError", b"", PNG, "is empty"),
    "empty form": (400, "UploadError", b"", {"Content-Type": FORM}, "no complete file"),
    "text": (415, "UploadError", b"words", {"Content-Type": "text/plain"}, "text/plain"),
    "JSON": (415, "UploadError", b"{}", {"Content-Type": "application/json"}, "Content-Type"),
    "words": (422, "ImageError", b"no image " * 99, PNG, "not a PNG"),
    "cut": (422, "ImageError", good()[:300], PNG, "truncated or damaged"),
    "damaged bomb": (422, "ImageError", BOMB + bytes(4), PNG, "the image: "),
    "too large": (413, "UploadError", b"x" * 100_001, PNG, "larger than 100,000 bytes"),
    "no boundary": (400, "UploadError", HEAD, {"Content-Type": "multipart/form-data"}, "boundary"),
    "other boundary": (400, "UploadError", HEAD + good(), {"Content-Type": FORM + "Y"}, "the form"),
    "half a form": (400, "UploadError", HEAD + good(), {"Content-Type": FORM}, "the form"),
    "form of words": (422, "ImageError", HEAD + b"words\r\n--XX--\r\n", {"Content-Type": FORM}, "part.png: not a PNG"),
    "many fields": (
        400, "UploadError", b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 99 + b"--XX--\r\n",
        {"Content-Type": FORM}, "the form",
    ),
    "form without a file": (
        400, "UploadError", HEAD.replace(b"; filename", b"; other") + b"words\r\n--XX--\r\n", {"Content-Type": FORM},
        "no complete file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_body_is_refused_with_the_reason(client: Client, name: str) -> None:
    status, kind, body, headers, words = REFUSED[name]
    answer = client.post(body, headers)
    assert (answer.status, answer.json["kind"]) == (status, kind)
    assert words in answer.json["error"]
    assert ";" in answer.json["error"]  # what to do
    assert client.post(good()).status == 200


def test_too_large_a_body_is_refused_also_where_its_length_is_not_said(client: Client) -> None:
    answer = client.post((b"x" * 1000 for _ in range(200)), encode_chunked=True)
    assert (answer.status, answer.json["kind"]) == (413, "UploadError")


def test_too_many_pixels_are_refused_before_they_are_decoded(model: InReaCh, tmp_path: Any) -> None:
    from small_fits import tiny_backbone

    model.save(tmp_path / "m")
    limited = InReaCh.load(tmp_path / "m", backbone=tiny_backbone(), max_pixels=2000)
    with serving(limited) as client:
        answer = client.post(encoded(np.zeros((50, 50, 3), np.uint8)))
    assert (answer.status, answer.json["kind"]) == (413, "ImageTooLargeError")
    assert "2,500 pixels" in answer.json["error"]


def test_half_a_request_and_what_is_no_http_harm_nobody(client: Client) -> None:
    for data in (b"POST /inspect HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nhalf", b"\x16\x03\x01\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", client.port)) as bare:
            bare.sendall(data)
    assert client.post(good()).status == 200


def test_a_body_that_does_not_come_is_given_up(model: InReaCh) -> None:
    with serving(model, ServiceLimits(body_seconds=0.05)) as client:
        with socket.create_connection(("127.0.0.1", client.port), 60) as bare:
            bare.sendall(b"POST /inspect HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nhalf")
            assert bare.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert client("GET", "/metrics").body.count(b'status="408"} 1\n') == 1


def test_names_that_clients_choose_are_plain(client: Client) -> None:
    for name, shown in (
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("a%0d%0ab%00", "ab"),
        ("C:%5Cx.png", "x.png"),
        ("", "the image"),
    ):
        assert client.post(good(), path=f"/inspect?name={name}").json["file"] == shown
    assert len(client.post(good(), path=f"/inspect?name={'n' * 999}").json["file"]) == 200


def test_requests_beyond_the_queue_are_refused_and_the_loop_stays_responsive(
    model: InReaCh, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, predict = threading.Event(), InReaCh.predict
    with serving(model, ServiceLimits(workers=1, queue=2)) as client, ThreadPoolExecutor(8) as pool:

        def slow(self: InReaCh, *args: Any, **options: Any) -> Any:
            go.wait(60)
            return predict(self, *args, **options)

        monkeypatch.setattr(InReaCh, "predict", slow)
        waiting = [pool.submit(client.post, good()) for _ in range(3)]
        while b"inreach_requests_open 3\n" not in client("GET", "/metrics").body:  # answered while a worker works
            pass
        refused = client.post(good())
        assert (refused.status, refused.json["kind"], refused.headers["Retry-After"]) == (503, "Busy", "1")
        assert client("GET", "/health").status == 200
        go.set()
        assert [future.result().status for future in waiting] == [200] * 3
        assert client.post(good()).status == 200


def test_it_is_not_ready_before_it_is_warm(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    go, warm_up = threading.Event(), Inspector.warm_up

    def slow(self: Inspector) -> Inspector:
        go.wait(60)
        return warm_up(self)

    monkeypatch.setattr(Inspector, "warm_up", slow)
    with serving(model, wait=False) as client:
        health, refused = client("GET", "/health"), client.post(good())
        assert (health.status, health.json["ready"], health.headers["Retry-After"]) == (503, False, "1")
        assert (refused.status, refused.json["kind"]) == (503, "NotReady")
        assert b"inreach_ready 0\n" in client("GET", "/metrics").body
        go.set()
        while client("GET", "/health").status != 200:
            time.sleep(0.01)
        assert client.post(good()).status == 200


def test_a_model_that_cannot_be_made_ready_ends_the_service(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Inspector) -> Inspector:
        raise BackboneError("weights: are gone; give them")

    monkeypatch.setattr(Inspector, "warm_up", fail)
    with pytest.raises(BackboneError, match="are gone"), serving(model):
        pass


def test_an_error_after_which_nothing_can_be_inspected_ends_the_service(
    model: InReaCh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ModelChangedError("m: was overwritten; load it again")

    def ask() -> None:
        with serving(model) as client:
            monkeypatch.setattr(InReaCh, "predict", fail)
            answer = client.post(good())
            assert (answer.status, answer.json["kind"]) == (503, "ModelChangedError")

    with pytest.raises(ModelChangedError):
        ask()


@pytest.mark.parametrize(
    ("error", "status"), [(MemoryError(), 503), (MemoryError("no 3 GB"), 503), (ZeroDivisionError("secret"), 500)]
)
def test_other_errors_of_a_request_leave_the_service_running(
    model: InReaCh, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    with serving(model) as client:
        with monkeypatch.context() as patched:
            patched.setattr(InReaCh, "predict", fail)
            answer = client.post(good())
        assert answer.status == status
        assert ";" in answer.json["error"] or str(error)
        assert b"secret" not in answer.body
        assert client.post(good()).status == 200


def test_health_and_metrics_count(model: InReaCh) -> None:
    with serving(model) as client:
        scores = [client.post(good(seed)).json["score"] for seed in range(3)]
        client.post(b"words")
        client.post(b"words", {"Content-Type": "text/plain"})
        health = client("GET", "/health").json
        answer = client("GET", "/metrics")
    anomalous = sum(score > model.threshold_ for score in scores)
    assert (health["ready"], health["inspected"], health["errors"]) == (True, 3, {"ImageError": 1})
    assert (health["anomalous"], health["latency"]["count"]) == (anomalous, 3)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["inreach_ready"] == "1"
    assert values['inreach_inspections_total{verdict="anomalous"}'] == str(anomalous)
    assert values['inreach_inspections_total{verdict="nominal"}'] == str(3 - anomalous)
    assert values['inreach_errors_total{kind="ImageError"}'] == "1"
    assert [values[f'inreach_requests_total{{status="{status}"}}'] for status in (200, 415, 422)] == ["3", "1", "1"]
    assert values["inreach_inspection_seconds_count"] == values['inreach_inspection_seconds_bucket{le="+Inf"}'] == "3"
    assert values["inreach_request_seconds_count"] == "5"
    buckets = [int(value) for name, value in values.items() if name.startswith("inreach_request_seconds_bucket")]
    assert buckets == sorted(buckets)
    for line in lines:  # the format, as a whole
        assert re.fullmatch(r'# (HELP|TYPE) \S+ .+|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+.\de]+', line), (
            line
        )


def test_the_page_needs_nothing_but_itself(client: Client) -> None:
    answer = client("GET", "/")
    page = answer.body.decode()
    assert answer.headers["Content-Type"].startswith("text/html")
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    policy = answer.headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "prefers-color-scheme: dark" in page
    assert 'aria-live="polite"' in page


def test_paths_and_methods_that_are_not_there(client: Client) -> None:
    assert client("GET", "/inspect").status == 405
    for path in ("/absent", "/docs", "/redoc", "/../etc/passwd"):
        assert client("GET", path).status == 404
    assert "/inspect" in client("GET", "/openapi.json").json["paths"]


def test_many_clients_at_once(model: InReaCh, client: Client) -> None:
    images = [good(seed) for seed in range(8)]
    scores = [model.predict(image).score for image in images]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: client.post(images[i % 8] if i % 5 else b"words"), range(80)))
    for number, answer in enumerate(answers):
        assert answer.status == (200 if number % 5 else 422)
        assert answer.json.get("score") == (scores[number % 8] if number % 5 else None)


def test_a_request_in_work_is_answered_before_the_end(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, predict = threading.Event(), threading.Event(), InReaCh.predict

    with ThreadPoolExecutor(1) as pool:
        with serving(model) as client:

            def slow(self: InReaCh, *args: Any, **options: Any) -> Any:
                begun.set()
                go.wait(60)
                return predict(self, *args, **options)

            monkeypatch.setattr(InReaCh, "predict", slow)
            answer = pool.submit(client.post, good())
            begun.wait(60)
            threading.Timer(0.3, go.set).start()
        assert answer.result(60).status == 200


@pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_which_addresses_others_reach(host: str, exposed: bool) -> None:
    with server.listen(host, 0) as bound:
        assert server.is_loopback(bound) == (not exposed)
        assert server.url_of(bound).startswith("http://")


def test_no_maps_without_a_way_to_draw_them(model: InReaCh) -> None:
    with serving(model, draw=None) as client:
        answer = client.post(good(), path="/inspect?map=1")
    assert (answer.status, answer.json["kind"]) == (406, "UploadError")


def test_a_service_can_be_part_of_another_app(model: InReaCh) -> None:
    routes: Callable[..., Any] = app.make_app
    assert {"/", "/inspect", "/health", "/metrics"} <= {
        getattr(route, "path", "") for route in routes(Inspector(model, warm=False)).routes
    }
