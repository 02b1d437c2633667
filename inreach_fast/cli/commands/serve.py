"""`inreach serve MODEL`: inspect images that are sent over HTTP."""

from __future__ import annotations

import argparse
import io
import logging
from pathlib import Path

from PIL import Image

from ...errors import BackendError
from ...estimator import InReaCh
from ...serving import Inspection, Inspector
from ...serving.events import events_to
from ...serving.signals import stop_on_signals
from ...system.memory import parse_bytes
from .. import options
from ..console import Console
from ..exit_codes import INTERRUPTED, SUCCESS
from ..pictures import Inspected

DESCRIPTION = """Inspects images over HTTP: POST an image file to /inspect, as the body or as a file of a form, and get
the fields of `inreach predict` as JSON; with ?map=1 also a heat-map picture (`map`, a data URL), with `Accept:
image/png` the picture alone. /health says whether it is ready, /metrics is for Prometheus, / is a page to drop an image
on. Events are lines of JSON on stderr. Ctrl-C or SIGTERM end it when the requests in work are done. Needs
inreach_fast[serve]."""

_MAX_PIXELS = 50_000_000
_LARGEST_SIDE = 1600  # of a picture


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="model file, written by `inreach fit`")
    words = "address to bind; others than this machine reach 0.0.0.0, and there is no password (default: 127.0.0.1)"
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=words)
    add("--port", type=_port, default=8000, metavar="N", help="port to bind; 0 takes a free one (default: 8000)")
    words = "images that are read and scored at the same time (default: 2)"
    add("--workers", type=options.positive_int, default=2, metavar="N", help=words)
    words = "requests that may wait besides them; more are refused with 503 (default: 32)"
    add("--queue", type=options.positive_int, default=32, metavar="N", help=words)
    add("--max-body", default="32MB", metavar="BYTES", help="size of the largest request (default: 32MB)")
    words = "seconds in which a request must have arrived (default: 30)"
    add("--body-seconds", type=options.number_from_0, default=30.0, metavar="S").help = words
    options.add_limits(parser)
    options.add_model_overrides(parser, max_pixels=_MAX_PIXELS)


def run(args: argparse.Namespace, console: Console) -> int:
    try:
        from ...serving.app import ServiceLimits
        from ...serving.server import listen, run_service
    except ImportError as error:
        raise BackendError(f"serve: {error.name} is not installed; run pip install 'inreach_fast[serve]'") from error
    limits = ServiceLimits(parse_bytes(args.max_body, "--max-body"), args.body_seconds, args.workers, args.queue)
    with stop_on_signals() as stop, events_to(level=logging.WARNING if args.quiet else logging.INFO):
        with listen(args.host, args.port) as bound:
            model = InReaCh.load(args.model, **options.model_overrides(args))
            threads = options.prediction_threads(args)
            inspector = Inspector(
                model, threshold=args.threshold, budget_ms=args.budget_ms, threads=threads, warm=False
            )
            inspector.name = args.model.name
            run_service(inspector, bound, stop=stop, limits=limits, draw=_overlay)
        return INTERRUPTED if stop.interrupted else SUCCESS


def _overlay(inspection: Inspection) -> bytes:
    """The heat map over the image, as PNG, no larger than a screen."""
    image, values = inspection.image, inspection.anomaly_map
    assert image is not None
    assert values is not None
    height, width = image.shape[:2]
    factor = min(1.0, _LARGEST_SIDE / max(height, width))
    size = (max(1, round(factor * height)), max(1, round(factor * width)))
    shown = Inspected(inspection.name, image, values, inspection.score, inspection.threshold, inspection.is_anomalous)
    _, _, overlay = shown.panels(size, max(1, round(min(size) / 180)))
    file = io.BytesIO()
    Image.fromarray(overlay).save(file, format="png")
    return file.getvalue()


def _port(text: str) -> int:
    """argparse type: a port, or 0."""
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give 0 to 65535")
    return int(text)
