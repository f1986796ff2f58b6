"""The model of a plait card: parameter names are the card's node names, so that tensors export one to one."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers import State, build, project

ModelState = list[list[State]]


class Step(nn.Module):
    """One residual step: norm, then one layer or several parallel ones, added to the stream."""

    def __init__(self, width: int, node: dict[str, Any], parent: nn.Module):
        super().__init__()
        node = dict(node)
        name = node.pop("name")
        branches = node.pop("branches", None)
        norm = build(width, node.pop("norm"))
        layer = build(width, node) if branches is None else nn.ModuleDict(
            {key: build(width, branch) for key, branch in branches.items()})
        if branches is not None and node:
            raise ValueError(f"step {name}: settings that nothing reads: {', '.join(sorted(node))}")
        parent.add_module(f"{name}_norm", norm)
        parent.add_module(name, layer)
        # Owned by the block under their node names; listed here without registering them twice.
        self.parts = (norm, [layer] if branches is None else list(layer.values()))

    def forward(self, x: Tensor, states: list[State | None], dropout: float) -> tuple[Tensor, list[State]]:
        norm, layers = self.parts
        h = norm(x)
        results = [layer(h, state) for layer, state in zip(layers, states)]
        y = sum(y.float() for y, _ in results)
        return x + F.dropout(y, dropout, self.training), [state for _, state in results]


class Block(nn.Module):
    def __init__(self, width: int, steps: list[dict[str, Any]]):
        super().__init__()
        self.steps = [Step(width, node, self) for node in steps]

    def forward(self, x: Tensor, states: list[State | None], dropout: float) -> tuple[Tensor, list[State]]:
        after: list[State] = []
        for step in self.steps:
            step.training = self.training
            count = len(step.parts[1])
            x, new = step(x, states[len(after):len(after) + count], dropout)
            after += new
        return x, after

    def layers(self) -> int:
        return sum(len(step.parts[1]) for step in self.steps)


class Embedding(nn.Module):
    def __init__(self, vocab: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab, width) * 0.05)


class Model(nn.Module):
    def __init__(self, card: dict[str, Any], dropout: float = 0.0):
        super().__init__()
        self.card, self.dropout = card, dropout
        if card["embed"] != {} or card["head"] != {"tied": "embed"}:
            raise ValueError("only a plain embedding and a head tied to it are implemented here")
        self.embed = Embedding(card["vocab"], card["width"])
        self.blocks = nn.ModuleList(Block(card["width"], card["blocks"][name]) for name in card["pattern"])
        self.final_norm = build(card["width"], card["final_norm"])

    def forward(self, tokens: Tensor, states: ModelState | None = None) -> tuple[Tensor, ModelState]:
        x = F.dropout(F.embedding(tokens, self.embed.weight), self.dropout, self.training)
        after: ModelState = []
        for index, block in enumerate(self.blocks):
            x, new = block(x, states[index] if states else [None] * block.layers(), self.dropout)
            after.append(new)
        return project(self.final_norm(x), self.embed.weight)[0].float(), after


def keep_streams(states: ModelState, keep: Tensor) -> ModelState:
    """Cuts the gradient, and empties the history of every stream whose `keep` is 0."""
    def one(t: Tensor) -> Tensor:
        return t.detach() * keep.view(-1, *[1] * (t.dim() - 1))
    return [[tuple(one(t) for t in state) for state in block] for block in states]


def load_card(path: Path) -> dict[str, Any]:
    card = json.loads(path.read_text())
    if card.get("plait_format") != 1:
        raise ValueError(f"{path}: plait_format must be 1")
    return card


def is_matrix(name: str, parameter: Tensor) -> bool:
    """The weights that are stored in bf16 panels: everything two-dimensional that multiplies activations."""
    return parameter.dim() == 2 and not name.endswith(("_conv", "ln_weight", "ln_bias", "b0"))


@torch.no_grad()
def round_to_storage(model: Model) -> None:
    for name, parameter in model.named_parameters():
        if is_matrix(name, parameter):
            parameter.copy_(parameter.bfloat16().float())
