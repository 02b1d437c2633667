"""Other methods under our protocol: those of the supplement's Table 1, and SoftPatch.

A module for each method, imported when the method is asked for: `make_peer`. None of them is InReaCh's, and each is
written from its paper; a docstring says where in the paper each parameter stands.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Final, NamedTuple

from ...errors import ParameterError
from .peer import Peer, PeerSettings

__all__ = ["INREACH", "METHODS", "PEERS", "TRAINED_METHODS", "Peer", "PeerSettings", "check_method", "make_peer"]


class Entry(NamedTuple):
    """Where a peer lives: its module in this package and its class there; ``title``: its name in its paper."""

    module: str
    class_name: str
    title: str


PEERS: Final[dict[str, Entry]] = {
    "patchcore": Entry("patchcore", "PatchCore", "PatchCore"),
    "padim": Entry("padim", "PaDiM", "PaDiM"),
    "spade": Entry("spade", "SPADE", "SPADE"),
    "softpatch": Entry("softpatch", "SoftPatch", "SoftPatch"),
    "cutpaste": Entry("cutpaste", "CutPaste", "CutPaste"),
    "patchsvdd": Entry("patchsvdd", "PatchSVDD", "PatchSVDD"),
}
"""The peers by the names that ``--method`` takes."""

INREACH: Final = "inreach"
METHODS: Final[dict[str, str]] = {INREACH: "InReaCh"} | {name: peer.title for name, peer in PEERS.items()}
"""All methods, and what tables call them."""
TRAINED_METHODS: Final = ("cutpaste", "patchsvdd")
"""Those that train a network."""


def check_method(name: str) -> str:
    """``name``; ParameterError naming the choices if it is no method, or one that this installation lacks."""
    if name not in METHODS:
        raise ParameterError(f"method: {name!r} is none; choose from {', '.join(METHODS)}")
    if name != INREACH and find_spec(f"{__package__}.{PEERS[name].module}") is None:
        present = [other for other in PEERS if find_spec(f"{__package__}.{PEERS[other].module}") is not None]
        raise ParameterError(f"method: {name!r} is not in this version; choose from {', '.join((INREACH, *present))}")
    return name


def make_peer(name: str, settings: PeerSettings) -> Peer:
    """The peer of that name, not fitted. Raises ParameterError as `check_method`."""
    if check_method(name) == INREACH:
        raise ParameterError(f"method: {name!r} is no peer; choose from {', '.join(PEERS)}")
    entry = PEERS[name]
    peer: Peer = getattr(import_module(f"{__package__}.{entry.module}"), entry.class_name)(settings)
    return peer
