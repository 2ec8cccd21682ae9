"""`vgg19-pixels`: a regressor of each pixel from 64 feature maps."""
