"""Trains the bundled model on streams of text with carried states (truncated back-propagation through time)."""
from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import data
from evaluate import quick_loss
from layers import Projection
from model import Model, ModelState, keep_streams, load_card
from optim import Muon

HERE = Path(__file__).parent


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint, last.pt")
    parser.add_argument("--card", type=Path, default=HERE / "tiny-hybrid.json")
    parser.add_argument("--text", type=Path, default=data.SHAKESPEARE, help="Tiny Shakespeare")
    parser.add_argument("--steps", type=int, default=2600, help="length of the schedule")
    parser.add_argument("--minutes", type=float, default=0,
                        help="end the schedule after this time even if steps remain (0: no limit)")
    parser.add_argument("--rows", type=int, default=16, help="streams per batch")
    parser.add_argument("--tokens", type=int, default=256, help="bytes per stream and step")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--warm-up", type=int, default=100, help="steps")
    parser.add_argument("--flat", type=float, default=0.35, help="share of the schedule before the rate falls to 0")
    parser.add_argument("--weight-decay", type=float, default=0.2)
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--bible", type=float, default=0.5, help="share of the Bible at the start")
    parser.add_argument("--bible-end", type=float, default=0.6, help="progress at which that share reaches 0")
    parser.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--validate-every", type=int, default=100, help="steps; a checkpoint is written as often. The tail is measured, and decides nothing")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    return parser.parse_args()


class Trainer:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        torch.manual_seed(options.seed)
        self.card = load_card(options.card)
        self.model = Model(self.card, options.dropout)
        self.average = Model(self.card).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.optimisers = make_optimisers(self.model, options)
        train, self.tail = data.split_shakespeare(options.text)
        bible = data.read_bible() if options.bible > 0 else []
        if options.bible > 0 and len(bible) == 0:
            raise SystemExit("train: no Bible text; install Debian's bible-kjv and bible-kjv-text or pass --bible 0")
        self.streams = data.Streams([train, bible] if len(bible) else [train],
                                    options.rows, options.tokens, options.seed)
        self.states: ModelState | None = None
        self.step, self.seconds = 0, 0.0

    def progress(self) -> float:
        done = self.step / self.options.steps
        if self.options.minutes:
            done = max(done, self.seconds / 60 / self.options.minutes)
        return min(done, 1.0)

    def shares(self) -> list[float]:
        if len(self.streams.texts) == 1:
            return [1.0]
        bible = self.options.bible * max(0.0, 1 - self.progress() / self.options.bible_end)
        return [1 - bible, bible]

    def rate(self) -> float:
        falling = (1 - self.progress()) / (1 - self.options.flat)
        return self.options.lr * min(1.0, (self.step + 1) / self.options.warm_up, falling)

    def train_step(self) -> float:
        inputs, targets, keep = self.streams.next(self.shares())
        states = keep_streams(self.states, keep) if self.states else None
        self.model.train()
        logits, self.states = self.model(inputs, states)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rate = self.rate()
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        self.step += 1
        decay = min(self.options.average, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.average.parameters()), [p.detach() for p in self.model.parameters()], 1 - decay)
        return loss.item()

    def run(self) -> None:
        every, running = self.options.validate_every, 0.0
        while self.progress() < 1:
            start = time.monotonic()
            running += self.train_step()
            self.seconds += time.monotonic() - start
            if self.step % every == 0 or self.progress() == 1:
                self.report(running / ((self.step - 1) % every + 1))
                running = 0.0

    @torch.no_grad()
    def report(self, train_loss: float) -> None:
        validation = quick_loss(self.average, self.tail)
        tokens = self.step * self.options.rows * self.options.tokens
        print(f"step {self.step}  tokens {tokens / 1e6:.2f} M  minutes {self.seconds / 60:.1f}  "
              f"progress {self.progress():.3f}  rate {self.rate():.5f}  train {train_loss:.4f}  "
              f"validation {validation:.4f}  tokens/s {tokens / self.seconds:.0f}", flush=True)
        self.save("last.pt", self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"card": self.card, "model": self.model.state_dict(), "average": self.average.state_dict(),
                "optimisers": [o.state_dict() for o in self.optimisers], "streams": self.streams.state_dict(),
                "states": keep_streams(self.states, torch.ones(self.options.rows)), "step": self.step,
                "seconds": self.seconds, "random": torch.get_rng_state()}

    def resume(self) -> None:
        path = self.options.out / "last.pt"
        if not path.exists():
            raise SystemExit(f"train: nothing to resume, {path} does not exist")
        saved = torch.load(path, weights_only=False)
        if saved["card"] != self.card:
            raise SystemExit(f"train: {path} belongs to another card")
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        for optimiser, state in zip(self.optimisers, saved["optimisers"]):
            # Rates and decays are this run's options; only moments come from the checkpoint.
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": state["state"], "param_groups": groups})
        self.streams.load_state_dict(saved["streams"])
        self.states, self.step, self.seconds = saved["states"], saved["step"], saved["seconds"]
        torch.set_rng_state(saved["random"])

    def save(self, name: str, content: dict[str, Any]) -> None:
        temporary = self.options.out / (name + ".part")
        torch.save(content, temporary)
        os.replace(temporary, self.options.out / name)


def make_optimisers(model: Model, options: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the large hidden matrices, Adam for the embedding, vectors, taps and narrow projections."""
    hidden, rest = [], []
    for name, parameter in model.named_parameters():
        large = parameter.dim() == 2 and min(parameter.shape) >= 32
        (hidden if large and not name.startswith("embed.") else rest).append(parameter)
    return [Muon(hidden, options.lr, weight_decay=options.weight_decay),
            torch.optim.AdamW(rest, options.lr, betas=(0.9, 0.98), weight_decay=0.0)]


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    Projection.compute_dtype = torch.bfloat16
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options)
    if options.resume:
        trainer.resume()
    print(f"{sum(p.numel() for p in trainer.model.parameters())} parameters, {options.threads} threads", flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
