"""The regressor of the original recipe: a dense network with 512 tanh units on standardised features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from lungseg.learning.fit import FitContext
from lungseg.learning.model_files import explain_damage, write_tensors
from lungseg.learning.regressors.base import PixelTable, Regressor, compute_column_moments
from lungseg.system.errors import InputError
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime

ROWS_A_CALL = 1 << 18
MOST_MEMORY = 0.5  # share of a device's free memory that the rows of a fit may take


class MlpSettings(Settings):
    """Keys of the dense network."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 40
    """Passes over the rows. The epoch with the least validation loss is kept. The original has 120."""
    hidden: Annotated[int, Field(ge=1, le=100_000)] = 512
    """Tanh units."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the units that is dropped in training."""
    batch_rows: Annotated[int, Field(ge=1)] = 1024
    """Rows a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of Adam."""


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014), with 16 random bits per unit on a CPU.

    torch draws a float32 for each unit, on one CPU thread, which is slower.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.bits = np.random.default_rng(0)

    def seed(self, *numbers: int) -> None:
        """Start the random bits anew from numbers of at least 0."""
        self.bits = np.random.default_rng(numbers)

    def forward(self, units: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return units
        if units.device.type != "cpu":
            return F.dropout(units, self.share)
        drawn = np.frombuffer(self.bits.bytes(2 * units.numel()), np.uint16)
        kept = torch.from_numpy(drawn >= round(self.share * 65536)).view_as(units)
        return units * kept * (1 / (1 - self.share))


class Mlp(Regressor):
    """Standardise, 512 tanh units, dropout, two-way softmax; trained by Adam on the cross-entropy."""

    FILE = "mlp.safetensors"
    Settings = MlpSettings
    on_device = True

    def __init__(self, settings: MlpSettings, runtime: Runtime) -> None:
        self.settings = settings
        self.device = runtime.device
        self.network: nn.Sequential | None = None
        self.mean = self.sd = torch.zeros(0)

    def _make_network(self, columns: int) -> None:
        self.network = nn.Sequential(
            nn.Linear(columns, self.settings.hidden),
            nn.Tanh(),
            Dropout(self.settings.dropout),
            nn.Linear(self.settings.hidden, 2),
        ).to(self.device)
        self.parameters = sum(weight.numel() for weight in self.network.parameters())
        self.mean = torch.zeros(columns, device=self.device)
        self.sd = torch.ones(columns, device=self.device)

    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        self._make_network(train.features.shape[1])
        self._standardise_by(train.features)
        torch.manual_seed(context.seed)
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)  # Keras' default for a dense layer
                nn.init.zeros_(layer.bias)
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.settings.learning_rate, fused=True)
        best, best_loss = None, float("inf")
        rows, held = self._place(train), self._place(validation)
        for epoch in range(1, self.settings.epochs + 1):
            train_loss, train_accuracy = self._run_epoch(*rows, optimiser, context, epoch)
            held_loss, held_accuracy = self._evaluate(*held)
            context.history(
                unit="epoch",
                step=epoch,
                train_loss=train_loss,
                validation_loss=held_loss,
                train_accuracy=train_accuracy,
                validation_accuracy=held_accuracy,
            )
            context.progress(epoch, self.settings.epochs, f"validation loss {held_loss:.4f}")
            if held_loss < best_loss:
                best_loss, self.best_step = held_loss, epoch
                best = {name: value.clone() for name, value in self.network.state_dict().items()}
        if best is None:
            raise InputError("the MLP's loss is not a number in any epoch: lower its learning_rate")
        self.network.load_state_dict(best)

    def _standardise_by(self, features: np.ndarray) -> None:
        mean, sd = compute_column_moments(features)
        self.mean = torch.tensor(mean, dtype=torch.float32, device=self.device)
        self.sd = torch.tensor(sd, dtype=torch.float32, device=self.device)

    def _logits(self, features: Tensor) -> Tensor:
        return self.network((features.to(self.device) - self.mean) / self.sd)

    def _place(self, table: PixelTable) -> tuple[Tensor, Tensor]:
        """Return features and targets, on the network's device if they fit there."""
        features, targets = torch.from_numpy(table.features), torch.from_numpy(table.targets)
        if self.device.type != "cpu":
            free, _ = torch.cuda.mem_get_info(self.device)
            if features.nbytes + targets.nbytes > MOST_MEMORY * free:
                return features, targets
        return features.to(self.device), targets.to(self.device)

    def _run_epoch(
        self,
        features: Tensor,
        targets: Tensor,
        optimiser: torch.optim.Optimizer,
        context: FitContext,
        epoch: int,
    ) -> tuple[float, float]:
        self.network.train()
        torch.manual_seed(context.seed * 100_003 + epoch)
        rows, size = len(targets), self.settings.batch_rows
        self.network[2].seed(context.seed, epoch)
        order = torch.randperm(rows).to(features.device)  # drawn on the host, so the same on every device
        loss_sum, right = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for start in range(0, rows, size):
            chosen = order[start : start + size]
            wanted = targets[chosen].to(self.device)
            logits = self._logits(features[chosen])
            loss = soft_cross_entropy(logits, wanted)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            loss_sum += loss.detach() * len(chosen)
            right += ((logits[:, 1] >= logits[:, 0]) == (wanted >= 0.5)).sum()
        return float(loss_sum) / rows, float(right) / rows

    @torch.inference_mode()
    def _evaluate(self, features: Tensor, targets: Tensor) -> tuple[float, float]:
        self.network.eval()
        found, sizes = [], []
        for some, aims in zip(features.split(ROWS_A_CALL), targets.split(ROWS_A_CALL), strict=True):
            wanted = aims.to(self.device)
            logits = self._logits(some)
            hits = ((logits[:, 1] >= logits[:, 0]) == (wanted >= 0.5)).sum()
            found.append(torch.stack([soft_cross_entropy(logits, wanted).double(), hits.double()]))
            sizes.append(len(wanted))
        loss = right = 0.0
        for (mean, hits), size in zip(torch.stack(found).tolist(), sizes, strict=True):  # one wait in all
            loss += mean * size
            right += hits
        return loss / len(targets), right / len(targets)

    @torch.inference_mode()
    def predict_tensor(self, features: Tensor) -> Tensor:
        """Predict values float32 N in [0, 1] of rows float32 N x F, on the network's device."""
        self.network.eval()
        blocks = features.split(ROWS_A_CALL)
        return torch.cat([self._logits(block.contiguous()).softmax(1)[:, 1] for block in blocks])

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.predict_tensor(torch.from_numpy(features)).cpu().numpy()

    def to_module(self) -> nn.Module:
        return _Probability(self.network, self.mean, self.sd)

    def save(self, directory: Path) -> None:
        tensors = {**self.network.state_dict(), "mean": self.mean, "sd": self.sd}
        write_tensors(directory / self.FILE, tensors)

    @classmethod
    def load(cls, directory: Path, settings: MlpSettings, runtime: Runtime) -> Mlp:
        path = directory / cls.FILE
        regressor = cls(settings, runtime)
        with explain_damage(path):
            tensors = load_file(path, device=str(runtime.device))
            regressor._make_network(len(tensors["mean"]))
            regressor.mean, regressor.sd = tensors.pop("mean"), tensors.pop("sd")
            regressor.network.load_state_dict(tensors)
        return regressor


class _Probability(nn.Module):
    """What `Mlp.predict_tensor` computes."""

    def __init__(self, network: nn.Module, mean: Tensor, sd: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("sd", sd)

    def forward(self, rows: Tensor) -> Tensor:
        return self.network((rows - self.mean) / self.sd).softmax(1)[:, 1]


def soft_cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """Compute the mean cross-entropy of logits N x 2 against shares of lung N in [0, 1]."""
    return F.cross_entropy(logits, torch.stack([1 - shares, shares], 1))
