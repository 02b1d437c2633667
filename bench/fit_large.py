"""`fit` of thousands of varied pictures under a memory limit: peak memory, disk and time beside the plan's forecast.

The pictures are cut from real ones as they are read (varied_images.py); 4000 are 12.5 million patches, 51 GB of
descriptors. Those that join a channel lie on disk, in the scratch folder, whose room is looked at before the fit
begins. A fit says on standard error how far it is.
"""

from __future__ import annotations

from typing import Any

from .children import Child
from .records import Case, value_case

IMAGES, QUICK_IMAGES = 4000, 24
PEAK_GB = 3.0


def run(*, quick: bool = False, images: int | None = None, extra: tuple[str, ...] = ()) -> list[Case]:
    """Cases: memory, disk, and seconds by stage.

    Args:
        quick: 24 images.
        images: how many, instead of what ``quick`` implies (4000).
        extra: further arguments of fit_large_child.py (backbone, image size, memory limit).
    """
    images = images or (QUICK_IMAGES if quick else IMAGES)
    with Child("bench.fit_large_child", [images, *extra]) as child:
        told = child.told
    return cases(told)


def cases(told: dict[str, Any]) -> list[Case]:
    """What a child told, as cases."""
    plan = told["plan"]
    name = f"fit of {told['images']} varied images, {told['patches']} patches, memory_limit {told['memory_limit']}"
    peak = "peak, resident (VmHWM)"
    own = told["fit"]["anonymous_before"] + told["fit"]["anonymous_peak"]
    memory = value_case(
        f"{name}: memory",
        {
            peak: told["peak"] / 1e9,
            "planned": plan["memory"]["peak"] / 1e9,
            "before the fit (imports, backbone)": told["before"] / 1e9,
            "the process's own at its peak (RssAnon)": own / 1e9,
        },
        data=told["data"],
        unit="GB",
        limits={peak: PEAK_GB} if told["images"] >= IMAGES else None,
        checks={
            "patches that joined a channel": f"{told['joined']:,} ({told['joined'] / told['patches']:.1%})",
            "nominal patches": f"{told['nominal']:,}",
        },
        bytes=told,
    )
    disk = value_case(
        f"{name}: disk",
        {
            "greatest, spool and model together": told["disk_peak"] / 1e9,
            "planned": plan["disk"]["peak"] / 1e9,
            "spool, when the fit is done": told["disk_fitted"] / 1e9,
            "model": told["model_bytes"] / 1e9,
            "planned, model": plan["disk"]["model"] / 1e9,
        },
        data=told["data"],
        unit="GB",
    )
    seconds = value_case(
        f"{name}: time",
        {
            "fit": told["fit"]["seconds"],
            "planned": plan["total_seconds"],
            **{f"of it {stage}": s for stage, s in told["stages"].items()},
            "save": told["save_seconds"],
        },
        data=told["data"],
        unit="s",
        checks={"planned in": f"{plan['planned_in']:.1f} s, from {plan['measured_images']} images"},
    )
    return [memory, disk, seconds]
