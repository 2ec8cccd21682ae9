"""The short names of approaches in a spec.

A new approach is a class that derives from `Approach`, and one line here. No approach imports this module, so
a new line changes no key of a stored fit.
"""

from __future__ import annotations

APPROACHES = {
    "vgg19-pixels": "lungseg.approaches.vgg19_pixels.approach:Vgg19Pixels",
    "vgg19-context": "lungseg.approaches.vgg19_context.approach:Vgg19Context",
    "deeplabv3plus-resnet50": "lungseg.approaches.deeplabv3plus.approach:DeepLabV3PlusResNet50",
    "mean-mask": "lungseg.approaches.baselines:MeanMask",
    "threshold": "lungseg.approaches.baselines:Threshold",
    "masks": "lungseg.approaches.given_masks:GivenMasks",
}

# What tables and figures call a row, unless the spec says so. The names in braces are its settings.
LABELS = {
    "vgg19-pixels": "A · Pixels, {regressor}, {size} px",
    "vgg19-context": "A · Pixels + context",
    "deeplabv3plus-resnet50": "B · DeepLabV3+, {size} px",
    "mean-mask": "Mean of the training masks",
    "threshold": "Threshold on grey values",
}
