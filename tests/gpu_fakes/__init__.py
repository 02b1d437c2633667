"""Stand-ins for what a GPU brings, so that all but the card itself is run in the tests.

libcuda.cpp   a driver whose cards are the host executor (tests/cuda_host): the extension `inreach_fast._cuda` runs
              on it as it would on a card, and it fails where it is told to
build.py      builds it, and the extension
cards.py      the host executor as a `Card`, without an extension; one that watches the order of streams
cupy_stub.py  as much of CuPy as `CupyCard` asks for
"""
