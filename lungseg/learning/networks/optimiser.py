"""The optimiser of a network: its parameters in groups, and its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lungseg.learning.networks.settings import TrainingSettings


def find_memory_order(weight: Tensor) -> tuple[int, ...]:
    """List a weight's dimensions from the outermost in memory to the innermost; it may be channels last."""
    if weight.ndim == 4 and not weight.is_contiguous():
        return 0, 2, 3, 1
    return tuple(range(weight.ndim))


class Optimiser:
    """AdamW or Adam, fused, over the parameters of a network as they lie in memory."""

    def __init__(
        self,
        network: nn.Module,
        group_parameters: Callable[[nn.Module], tuple[list[nn.Parameter], list[nn.Parameter]]],
        settings: TrainingSettings,
    ) -> None:
        """Group the parameters of a network that is on its device, in its memory format.

        `group_parameters` returns a network's pretrained and its new parameters.
        """
        self._parameters = list(network.parameters())
        self._orders = [find_memory_order(parameter) for parameter in self._parameters]
        # The same memory as contiguous tensors: for any others a CPU's fused optimiser copies the gradient.
        self._stored = [
            p.detach().permute(order) for p, order in zip(self._parameters, self._orders, strict=True)
        ]
        groups = self._make_groups(*group_parameters(network), settings)
        if settings.optimiser == "adam":
            self._torch = torch.optim.Adam([{**g, "weight_decay": 0.0} for g in groups], fused=True)
        else:
            self._torch = torch.optim.AdamW(groups, fused=True)
        self.top_rates = [group["lr"] for group in self._torch.param_groups]  # by group

    def _make_groups(
        self, backbone: list[nn.Parameter], head: list[nn.Parameter], s: TrainingSettings
    ) -> list[dict[str, Any]]:
        stored = dict(zip(self._parameters, self._stored, strict=True))
        groups = []
        for parameters, rate in ((backbone, s.learning_rate * s.backbone_factor), (head, s.learning_rate)):
            # No weight decay on vectors (biases, scales of batch norms).
            matrices = [stored[p] for p in parameters if p.ndim > 1]
            vectors = [stored[p] for p in parameters if p.ndim <= 1]
            groups += [
                {"params": matrices, "lr": rate, "weight_decay": s.weight_decay},
                {"params": vectors, "lr": rate, "weight_decay": 0.0},
            ]
        return groups

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of torch's optimiser."""
        return self._torch.param_groups

    def set_rates(self, factor: float) -> None:
        """Set each group's learning rate to `factor` times its highest one."""
        for group, rate in zip(self._torch.param_groups, self.top_rates, strict=True):
            group["lr"] = rate * factor

    def allocate(self) -> None:
        """Make the moments, if there are none yet, by a step that changes nothing.

        torch makes them in the middle of its first step, where a full memory would leave half of it done.
        """
        if self._torch.state:
            return
        for parameter, stored in zip(self._parameters, self._stored, strict=True):
            stored.grad = torch.zeros_like(stored) if parameter.requires_grad else None
        self._torch.found_inf = torch.ones((), device=self._stored[0].device)
        self._torch.step()
        self._torch.zero_grad(set_to_none=True)

    def step(self, skip: Tensor | None = None) -> None:
        """Move the parameters by their gradients.

        The gradients stay in memory as the parameters' own until these drop them.

        `skip` is a float32 scalar on the device, 0 or 1. With 1 the device leaves parameters, moments and the
        number of steps as they are; nothing waits for its value.
        """
        for parameter, order, stored in zip(self._parameters, self._orders, self._stored, strict=True):
            stored.grad = None if parameter.grad is None else parameter.grad.permute(order)
        self._torch.found_inf = skip  # as torch's GradScaler does
        self._torch.step()
        self._torch.zero_grad(set_to_none=True)  # else they would stay after the parameters have dropped them

    def state_dict(self) -> dict[str, Any]:
        """Return the state of torch's optimiser."""
        return self._torch.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned; tensors may be on any device."""
        self._torch.load_state_dict(state)
