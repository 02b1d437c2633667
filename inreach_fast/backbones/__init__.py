"""Backbones: the networks whose features InReaCh compares.

definition.py         BackboneDefinition and Normalisation: what a factory returns
backbone.py           Backbone: uint8 batch -> one feature map for each level; the levels of any module
loading.py            load_backbone: by name, "timm:NAME" and "FILE.py:FACTORY" included
weights.py            files found, verified by sha256, read without executing anything in them; random ones
resnet.py             torchvision's residual networks; WideResNet50-2, the paper's
efficientnet_lite.py  EfficientNet-Lite2, whose weights are a package
transformer.py        blocks of vision transformers as maps
hooked_network.py     the levels of any module, by hooks
runtimes.py           what computes a network: torch, OpenVINO, ONNX Runtime
choosing.py           the fastest of them
folding.py            BatchNorms folded into convolutions, ReLUs and sums fused (fused_convolution.py)
quantization.py       convolutions by 8-bit integers
exported_network.py   a network by another runtime: openvino_network.py, onnx_network.py
network_cache.py      the folder in which exported networks are kept
"""

from .backbone import Backbone, prepare_input
from .choosing import by_fastest_runtime
from .definition import IMAGENET, REFERENCE, BackboneDefinition, Normalisation
from .loading import backbone_from_spec, load_backbone
from .network_cache import cached_networks, empty_network_cache, network_cache_folder, set_network_cache
from .runtimes import RUNTIMES, is_installed, version_of

__all__ = [
    "IMAGENET",
    "REFERENCE",
    "RUNTIMES",
    "Backbone",
    "BackboneDefinition",
    "Normalisation",
    "backbone_from_spec",
    "by_fastest_runtime",
    "cached_networks",
    "empty_network_cache",
    "is_installed",
    "load_backbone",
    "network_cache_folder",
    "prepare_input",
    "set_network_cache",
    "version_of",
]
