"""ResNet-50 as its authors trained it (He, Zhang, Ren, Sun; Caffe release), up to layer3: a backbone for
evaluation.

Its 13 blocks have exactly the shapes of WideResNet50-2's. Use it as

    inreach fit DIR -o MODEL --backbone bench/backbones/resnet50_caffe.py:build

The environment variable INREACH_RESNET50_CAFFE names the weight file (safetensors, torchvision's tensor names); the
default is ../shared/weights/resnet50_caffe_layer3.safetensors next to the repository. It is not part of this package.

Differences from torchvision's ResNet-50: the input is BGR, 0 to 255, minus a mean, undivided; in layer2.0 and
layer3.0 the stride sits in the first convolution (1x1); the max-pool has no padding and rounds up.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet50

from inreach_fast.backbones import BackboneDefinition, Normalisation
from inreach_fast.backbones.resnet import resnet_block_names, resnet_hierarchies
from inreach_fast.backbones.weights import load_state, read_state

SHA256 = "8243183e751f0c0bc0b01e50a18f77d06fe7260f5d049d16fe9f7b1cae0262a3"
VARIABLE = "INREACH_RESNET50_CAFFE"
NORMALISATION = Normalisation((103.0626, 115.9029, 123.1516), (1.0, 1.0, 1.0), scale=1.0, channel_order="BGR")


def weights_file() -> Path:
    """The weights file; it may be absent."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return Path(__file__).resolve().parents[3] / "shared" / "weights" / "resnet50_caffe_layer3.safetensors"


def build() -> BackboneDefinition:
    """The factory. Raises WeightsError if the file is missing or its sha256 is not SHA256."""
    path = weights_file()
    with torch.device("meta"):
        model = resnet50(weights=None)
        del model.layer4, model.fc
    for first in (model.layer2[0], model.layer3[0]):
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    model.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
    load_state(model, read_state(path, SHA256), str(path))
    return BackboneDefinition(
        module=model,
        levels=resnet_block_names(model),
        normalisation=NORMALISATION,
        name="resnet50_caffe",
        hierarchies=resnet_hierarchies(model),
        known_levels=resnet_block_names(model),
    )
