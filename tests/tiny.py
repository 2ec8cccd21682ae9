"""The smallest spec that the tests of the harness share."""

HEAD = """
name = "tiny"
seeds = [0, 1]
runtime = { device = "cpu" }
[data]
dataset = "phantom"
count = 12
size = 48
[[approach]]
use = "mean-mask"
label = "mean-mask"
size = 24
"""
PIXELS = """
[[approach]]
use = "vgg19-pixels"
name = "pixels"
label = "pixels"
weights = "random"
size = 16
pixels_per_image = 200             # not all of them, so that chance plays a part
regressor = "ridge"
"""
TIMING = """
[timing]
batch_sizes = [1, 3]
repeats = 4
warmup = 1
rounds = 2
"""
SPEC = HEAD + PIXELS + TIMING
NO_TIMING = ["timing.enabled=false"]
