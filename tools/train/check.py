"""Compares plait's forward pass of a model file with the one of these scripts, both in float32."""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

import data
from model import Model

TOLERANCE = 1e-4


def read_tensor(dataset: h5py.Dataset) -> Tensor:
    """Undoes the storage: bf16 panels [out/32, in/2, 32, 2] or plain f32."""
    shape = [int(n) for n in dataset.attrs["shape"]]
    kind = dataset.attrs["encoding"], dataset.attrs["layout"]
    if kind == ("bf16", "panels"):
        bits = np.empty(dataset.shape, dtype=np.uint16)
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=dataset.id.get_type())
        rows = bits.transpose(0, 2, 1, 3).reshape(bits.shape[0] * bits.shape[2], -1)[:shape[0], :shape[1]]
        return torch.from_numpy((rows.astype(np.uint32) << 16).view(np.float32))
    if kind[0] == "f32" and kind[1] in ("rows", "vector"):
        return torch.from_numpy(dataset[...]).view(shape)
    raise ValueError(f"{dataset.name}: encoding {kind[0]} in layout {kind[1]} is not one export.py writes")


def read_model(path: Path) -> Model:
    with h5py.File(path) as file:
        model = Model(json.loads(file.attrs["card"]))
        names = list(model.state_dict())
        model.load_state_dict({name: read_tensor(file["/" + name.replace(".", "/")]) for name in names})
    return model.eval()


def plait_logits(plait: Path, model: Path, text: Path) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npy"
        command = [str(plait), "score", str(model), "--text", str(text), "--stream", "--dump-logits", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"check: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return np.load(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("model", type=Path, help="model file written by export.py")
    parser.add_argument("--plait", type=Path, default=Path("build/plait"), help="the plait program")
    parser.add_argument("--text", type=Path, help="text to compare on (default: 700 bytes of the validation part)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = options.text
        if text is None:
            text = Path(folder) / "text"
            data.split_shakespeare(data.SHAKESPEARE)[1][:700].tofile(text)
        tokens = torch.from_numpy(np.fromfile(text, dtype=np.uint8).astype(np.int64))
        with torch.no_grad():
            ours = read_model(options.model)(tokens[None])[0][0].log_softmax(-1)
        theirs = torch.from_numpy(plait_logits(options.plait, options.model, text)).log_softmax(-1)
    # plait may stop before the last byte, after which there is nothing to score.
    rows = min(len(ours), len(theirs))
    difference = (ours[:rows] - theirs[:rows]).abs().max().item()
    print(f"{rows} tokens: largest difference of a log-probability {difference:.2e} (allowed {TOLERANCE:.0e})")
    sys.exit(0 if rows >= len(ours) - 1 and difference <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
