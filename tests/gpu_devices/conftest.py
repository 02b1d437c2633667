"""The GPU route on the CPU: cards that are the host executor, and torch's CPU tensors in the place of a card's."""

from __future__ import annotations

import cuda_host.build
import pytest
from gpu_fakes.cards import HostCard, OrderedCard

from inreach_fast.kernels import gpu_backends, registry
from inreach_fast.kernels.gpu_devices import extension, interop, opening


@pytest.fixture
def host_cards(monkeypatch: pytest.MonkeyPatch) -> list[HostCard]:
    """Two cards behind backend "cuda"; arrays of torch count as lying on the first."""
    return _behind_the_backend([HostCard(0), HostCard(1)], monkeypatch)


@pytest.fixture
def ordered_card(monkeypatch: pytest.MonkeyPatch) -> OrderedCard:
    """The same with one card, which watches the order of streams."""
    card = OrderedCard()
    _behind_the_backend([card], monkeypatch)
    return card


def _behind_the_backend(cards: list[HostCard], monkeypatch: pytest.MonkeyPatch) -> list[HostCard]:
    if cuda_host.build.compiler() is None:
        pytest.skip("NO C++ COMPILER: the CUDA kernels were not run on the CPU")
    library = interop.TorchLibrary("cpu")
    found = registry._found
    monkeypatch.setattr(interop, "_TORCH_TYPES", ("cuda", "cpu"))
    monkeypatch.setattr(interop, "_torch_library", lambda: library)
    monkeypatch.setattr(opening, "card_count", lambda: len(cards))
    monkeypatch.setattr(registry, "card_count", lambda: len(cards))
    monkeypatch.setattr(registry, "has_card", lambda: True)
    monkeypatch.setattr(registry, "_found", lambda needed: needed == "inreach_fast._cuda" or found(needed))
    monkeypatch.setattr(extension, "_cards", dict(enumerate(cards)))
    monkeypatch.setattr(gpu_backends, "_backends", {})
    monkeypatch.setattr(gpu_backends, "_singles", {})
    return cards
