"""Streaming evaluation: one stream over the whole validation tail, and a fresh stream before each tenth of it."""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import data
from model import Model, keep_streams, round_to_storage

# A multiple of every grid of the layers (window, chunk, mini-batch), so that carried states are exact.
SEGMENT = 2048


@torch.no_grad()
def stream_losses(model: Model, text: Tensor, segment: int = SEGMENT) -> Tensor:
    """Nats of every byte but the first of each row of text [rows, bytes]; rows are independent streams."""
    model.eval()
    inputs, targets = text[:, :-1], text[:, 1:]
    states, losses = None, []
    for start in range(0, inputs.shape[1], segment):
        logits, states = model(inputs[:, start:start + segment], states)
        states = keep_streams(states, torch.ones(len(text)))
        part = targets[:, start:start + segment]
        losses.append(F.cross_entropy(logits.transpose(1, 2), part, reduction="none"))
    return torch.cat(losses, dim=1)


def quick_loss(model: Model, text: np.ndarray, rows: int = 16) -> float:
    """Nats per byte in `rows` streams side by side: fast, and slightly pessimistic for its cold starts."""
    length = len(text) // rows
    pieces = torch.from_numpy(text[:rows * length].astype(np.int64)).view(rows, length)
    return stream_losses(model, pieces, 512).mean().item()


def compare_tenths(model: Model, text: np.ndarray, warm_up: int = 1000) -> tuple[float, list[tuple[float, float]]]:
    """(loss of the one stream, per tenth (loss in the one stream, loss in a fresh stream started `warm_up` before))."""
    tokens = torch.from_numpy(text.astype(np.int64))
    whole = stream_losses(model, tokens[None])[0]
    edges = np.linspace(0, len(whole), 11).astype(int)
    tenths = []
    for first, last in zip(edges[:-1], edges[1:]):
        start = max(0, first - warm_up)
        fresh = stream_losses(model, tokens[None, start:last + 1])[0]
        tenths.append((whole[first:last].mean().item(), fresh[first - start:].mean().item()))
    return whole.mean().item(), tenths


def load_model(checkpoint: Path) -> Model:
    """The averaged weights of a checkpoint, rounded as the model file stores them."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=False)
    model = Model(saved["card"])
    model.load_state_dict(saved["average"])
    round_to_storage(model)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of train.py")
    parser.add_argument("--text", type=Path, default=data.SHAKESPEARE, help="Tiny Shakespeare; its last tenth is used")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    _, tail = data.split_shakespeare(options.text)
    loss, tenths = compare_tenths(load_model(options.checkpoint), tail)
    print(f"one stream over {len(tail)} bytes: {loss:.4f} nats per byte")
    for index, (stream, fresh) in enumerate(tenths):
        print(f"tenth {index}: stream {stream:.4f}  fresh {fresh:.4f}  difference {stream - fresh:+.4f}")


if __name__ == "__main__":
    main()
