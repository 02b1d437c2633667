"""The estimator `InReaCh`, the class that users call.

inreach.py          InReaCh: its methods check their arguments and hand over to fit/, predict/ and storage/
fitted_state.py     everything that a fit leaves, as one object; to a model file and back
feedback_parts.py   accepted and rejected regions in a model file
pickling.py         pickles, which hold the model file's bytes
network_holder.py   the network, loaded on first use and held to the one of the fit
training_rows.py    descriptors of the training images, for `training_scores` and `forget`
"""

from __future__ import annotations

from .inreach import InReaCh

__all__ = ["InReaCh"]
