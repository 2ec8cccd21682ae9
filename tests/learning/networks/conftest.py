from tests.networks import network_training, noise_images, settings

__all__ = ["network_training", "noise_images", "settings"]
