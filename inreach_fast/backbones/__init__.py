"""Backbones: the networks whose features InReaCh compares.

definition.py         BackboneDefinition and Normalisation: what a factory returns
backbone.py           Backbone: uint8 batch -> one feature map for each level; the levels of any module
loading.py            load_backbone: by name, "timm:NAME" and "FILE.py:FACTORY" included
weights.py            files found, verified by sha256, read without executing anything in them; random ones
resnet.py             torchvision's residual networks; WideResNet50-2, the paper's
efficientnet_lite.py  EfficientNet-Lite2, whose weights are a package
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
