import torch


def same_weights(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    """Whether all weights and buffers of two networks have the same bits."""
    return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
