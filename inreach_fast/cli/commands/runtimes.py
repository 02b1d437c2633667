"""`inreach runtimes`: what can compute the network on this machine, and the cache of exported networks."""

from __future__ import annotations

import argparse

from ..console import Console, format_table

DESCRIPTION = """Lists the runtimes that can compute the network (--backbone-runtime), and the folder in
which networks are kept that were exported to one of them."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--empty-cache", action="store_true", help="remove every exported network from the folder")


def run(args: argparse.Namespace, console: Console) -> None:
    from ...backbones import (
        RUNTIMES,
        cached_networks,
        empty_network_cache,
        is_installed,
        network_cache_folder,
        version_of,
    )

    removed = empty_network_cache() if args.empty_cache else (0, 0)
    count, size = cached_networks()
    versions = {name: version_of(name) if is_installed(name) else None for name in RUNTIMES}
    cache = {"folder": network_cache_folder(), "networks": count, "bytes": size}
    console.record({"runtimes": versions, "cache": cache, "removed": {"networks": removed[0], "bytes": removed[1]}})
    rows = [[name, version or "not installed"] for name, version in versions.items()]
    console.result(format_table(["runtime", "version"], rows))
    console.result(f"cache: {network_cache_folder()}, {count} networks, {size / 1e6:.1f} MB")
    if args.empty_cache:
        console.result(f"removed: {removed[0]} networks, {removed[1] / 1e6:.1f} MB")
