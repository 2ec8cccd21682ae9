"""What happens to images before any approach sees them: resizing, augmentation, geometry."""
