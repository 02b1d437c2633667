"""`fit` of thousands of varied pictures under a memory limit: peak memory, disk and time against the plan's estimate.

The pictures are cut from real ones while they are read (varied_images.py); 4000 are 12.5 million patches, 51 GB of
descriptors. Those that join a channel are kept on disk, in the scratch folder, whose free space is checked before the
fit starts. Progress goes to standard error.
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
        found = child.reply
    return cases(found)


def cases(found: dict[str, Any]) -> list[Case]:
    """The measurements of a child, as cases."""
    plan = found["plan"]
    name = f"fit of {found['images']} varied images, {found['patches']} patches, memory_limit {found['memory_limit']}"
    peak = "peak, resident (VmHWM)"
    own = found["fit"]["anonymous_before"] + found["fit"]["anonymous_peak"]
    memory = value_case(
        f"{name}: memory",
        {
            peak: found["peak"] / 1e9,
            "planned": plan["memory"]["peak"] / 1e9,
            "before the fit (imports, backbone)": found["before"] / 1e9,
            "the process's own at its peak (RssAnon)": own / 1e9,
        },
        data=found["data"],
        unit="GB",
        limits={peak: PEAK_GB} if found["images"] >= IMAGES else None,
        checks={
            "patches that joined a channel": f"{found['joined']:,} ({found['joined'] / found['patches']:.1%})",
            "nominal patches": f"{found['nominal']:,}",
        },
        bytes=found,
    )
    disk = value_case(
        f"{name}: disk",
        {
            "peak, spool and model together": found["disk_peak"] / 1e9,
            "planned": plan["disk"]["peak"] / 1e9,
            "spool, when the fit is done": found["disk_fitted"] / 1e9,
            "model": found["model_bytes"] / 1e9,
            "planned, model": plan["disk"]["model"] / 1e9,
        },
        data=found["data"],
        unit="GB",
    )
    seconds = value_case(
        f"{name}: time",
        {
            "fit": found["fit"]["seconds"],
            "planned": plan["total_seconds"],
            **{f"of which {stage}": s for stage, s in found["stages"].items()},
            "save": found["save_seconds"],
        },
        data=found["data"],
        unit="s",
        checks={"planned in": f"{plan['planned_in']:.1f} s, from {plan['measured_images']} images"},
    )
    return [memory, disk, seconds]
