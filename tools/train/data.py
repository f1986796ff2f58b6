"""Training text: Tiny Shakespeare (first 90 %) and, early in the run, the King James Bible of a Debian package."""
from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SHAKESPEARE = Path(__file__).resolve().parents[3] / "shared" / "data" / "tinyshakespeare.txt"


def split_shakespeare(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first 90 % for training, the last 10 % for validation, as everybody cuts this file."""
    text = np.fromfile(path, dtype=np.uint8)
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def read_bible() -> np.ndarray:
    """The text of Debian's bible-kjv-text without its verse numbers; an empty array where it is not installed."""
    try:
        printed = subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], capture_output=True, check=True,
                                 stdin=subprocess.DEVNULL).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return np.zeros(0, dtype=np.uint8)
    verses = re.sub(rb"(?m)^\S+ ?\d*:\d+ ", b"", printed)
    return np.frombuffer(verses, dtype=np.uint8)


class Streams:
    """Batches of consecutive segments: row i goes on where it stopped, until its lifetime or its text ends.

    Lifetimes are spread log-uniformly from 4 to 512 segments, so that the model meets short and very long histories.
    """

    def __init__(self, texts: list[np.ndarray], rows: int, tokens: int, seed: int):
        self.texts, self.rows, self.tokens = texts, rows, tokens
        self.random = np.random.default_rng(seed)
        self.source = np.zeros(rows, dtype=np.int64)
        self.position = np.zeros(rows, dtype=np.int64)
        self.left = np.zeros(rows, dtype=np.int64)

    def next(self, shares: list[float]) -> tuple[Tensor, Tensor, Tensor]:
        """(inputs, targets, keep): keep is 0 where a row has just started somewhere else."""
        keep = np.ones(self.rows, dtype=np.float32)
        batch = np.empty((self.rows, self.tokens + 1), dtype=np.int64)
        for row in range(self.rows):
            text = self.texts[self.source[row]]
            if self.left[row] == 0 or self.position[row] + self.tokens + 1 > len(text):
                text = self.redraw(row, shares)
                keep[row] = 0
            start = self.position[row]
            batch[row] = text[start:start + self.tokens + 1]
            self.position[row] += self.tokens
            self.left[row] -= 1
        tokens = torch.from_numpy(batch)
        return tokens[:, :-1], tokens[:, 1:], torch.from_numpy(keep)

    def redraw(self, row: int, shares: list[float]) -> np.ndarray:
        self.source[row] = self.random.choice(len(self.texts), p=shares)
        text = self.texts[self.source[row]]
        self.position[row] = self.random.integers(0, len(text) - self.tokens - 1)
        self.left[row] = int(2 ** self.random.uniform(2, 9))
        return text

    def state_dict(self) -> dict[str, object]:
        return {"source": self.source, "position": self.position, "left": self.left,
                "random": self.random.bit_generator.state}

    def load_state_dict(self, saved: dict[str, object]) -> None:
        self.source, self.position, self.left = saved["source"], saved["position"], saved["left"]
        self.random.bit_generator.state = saved["random"]
