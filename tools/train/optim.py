"""Muon for the hidden matrices: momentum whose singular values are set to about one, shape by shape in batches."""
from __future__ import annotations

import torch
from torch import Tensor, nn


def orthogonalise(m: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards U V^T for a batch of matrices [n, rows, cols], in bfloat16."""
    x = m.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.transpose(-1, -2)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # Coefficients of the quintic that lifts small singular values fastest (they end within 0.7 .. 1.2).
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(-1, -2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; scaled so that `lr` means what it means for Adam; decoupled decay."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for shape, parameters in shapes.items():
                self.step_shape(parameters, group, scale=0.2 * max(shape) ** 0.5)

    def step_shape(self, parameters: list[nn.Parameter], group: dict, scale: float) -> None:
        directions = []
        for p in parameters:
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.lerp_(p.grad, 1 - group["momentum"])
            directions.append(p.grad.lerp(momentum, group["momentum"]))
        updates = orthogonalise(torch.stack(directions))
        for p, update in zip(parameters, updates):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update, alpha=-group["lr"] * scale)
