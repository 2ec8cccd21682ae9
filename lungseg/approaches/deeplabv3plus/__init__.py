"""`deeplabv3plus-resnet50`: the network; its training is that of any network (`approaches.network`)."""
