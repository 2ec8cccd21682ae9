"""Training of any network and its predictions: feed, schedule, losses, checkpoints, several processes."""
