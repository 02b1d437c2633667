"""What a resumed fit must share with the one that was interrupted."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._version import __version__
from ..method.channels import FILTER_PARAMETERS
from .context import FitContext

# Parameters on which a spool's data do not depend, so that a fit whose filters left no channel can be resumed with
# others. (Once the filters are done, their parameters are on record: `Spool.record_selection`.)
_WITHOUT_EFFECT = (
    "batch_size",
    "backend",
    "backbone_runtime",  # what it stands for is on record
    "max_pixels",
    "thumbnails",
    *FILTER_PARAMETERS,
    "score",
    "distance",
    "smoothing_sigma",
    "witnesses",
)


def configuration(context: FitContext) -> dict[str, Any]:
    """Everything that a spool's data depend on besides the images, as JSON."""
    import torch

    seeds, describer = context.seeds, context.describer
    parameters = {name: value for name, value in context.parameters.to_saved().items() if name not in _WITHOUT_EFFECT}
    return {
        **parameters,
        "backbone_fingerprint": describer.backbone.fingerprint,
        "runtime": describer.runtime,
        "seeds": None if seeds is None else [str(seed) for seed in np.atleast_1d(np.asarray(seeds, dtype=object))],
        "skip_bad": context.skip_bad,
        "torch": str(torch.__version__),
        "torch_threads": torch.get_num_threads(),
        "version": __version__,
    }
