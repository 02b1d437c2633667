"""The estimator `InReaCh`: what a user calls. A class for each thing that it does, which `InReaCh` inherits.

inreach.py                   InReaCh: its arguments and attributes
state.py                     the attributes, what a fit leaves in them, and what all parts ask of them
network.py                   the network, loaded on first use; network inputs to descriptors
fitting.py                   plan, fit, fit_descriptors; where a fit works
growing.py                   partial_fit, partial_fit_descriptors, forget
predicting.py                predict, predict_stream, score_descriptors
image_prediction.py          one image's way to its prediction, on the CPU or on a GPU
training_scores.py           training_scores
compressing.py               compress
saving.py                    save, load
descriptor_references.py     descriptors that the caller keeps
"""

from __future__ import annotations

from .inreach import InReaCh

__all__ = ["InReaCh"]
