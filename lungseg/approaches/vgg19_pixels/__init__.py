"""`vgg19-pixels`: a regressor of each pixel from 64 feature maps, in one process or on a cluster."""
