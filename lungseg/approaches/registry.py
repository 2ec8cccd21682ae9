"""Approaches that a spec names by a short name.

A new one is a class that derives from `Approach`, and one line here. No approach imports this module: a line more in it is no change of theirs.
"""

from __future__ import annotations

APPROACHES = {
    "vgg19-pixels": "lungseg.approaches.vgg19_pixels.approach:Vgg19Pixels",
    "vgg19-context": "lungseg.approaches.vgg19_context.approach:Vgg19Context",
    "deeplabv3plus-resnet50": "lungseg.approaches.deeplabv3plus.approach:DeepLabV3PlusResNet50",
    "mean-mask": "lungseg.approaches.baselines:MeanMask",
    "threshold": "lungseg.approaches.baselines:Threshold",
}
