"""Features of a frozen VGG19: of each pixel, and at several scales."""
