"""Writes the averaged weights of a checkpoint as a plait model file."""
from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from evaluate import load_model
from model import Model, is_matrix

PANEL = 32


def bfloat16_type() -> h5py.h5t.TypeFloatID:
    """plait's storage type: a little-endian float of 16 bits with an exponent of 8."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def bfloat16_panels(weight: Tensor) -> np.ndarray:
    """[out, in] -> bits [out/32, in/2, 32, 2], padded with zeros: element [p][i][j][c] is W[32 p + j][2 i + c]."""
    rows, cols = weight.shape
    bits = weight.bfloat16().contiguous().view(torch.int16).numpy().view(np.uint16)
    padded = np.zeros((-(-rows // PANEL) * PANEL, cols + cols % 2), dtype=np.uint16)
    padded[:rows, :cols] = bits
    panels = padded.reshape(-1, PANEL, padded.shape[1] // 2, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(panels)


def stored(name: str, weight: Tensor) -> tuple[np.ndarray, str, str]:
    """(array as stored, encoding, layout)"""
    if is_matrix(name, weight):
        return bfloat16_panels(weight), "bf16", "panels"
    return weight.float().contiguous().numpy(), "f32", "vector" if weight.dim() == 1 else "rows"


def write_dataset(file: h5py.File, path: str, array: np.ndarray) -> h5py.Dataset:
    if array.dtype == np.uint16:
        kind = bfloat16_type()
        groups = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        groups.set_create_intermediate_group(True)
        space = h5py.h5s.create_simple(array.shape)
        dataset = h5py.h5d.create(file.id, path.encode(), kind, space, lcpl=groups)
        # Memory type equal to file type: the bits pass unconverted.
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array, mtype=kind)
        return file[path]
    return file.create_dataset(path, data=array)


def write_tensors(file: h5py.File, model: Model) -> str:
    """Writes every tensor and returns the digest over them in the order of their paths."""
    string, digest = h5py.string_dtype("utf-8"), hashlib.sha256()
    tensors = {"/" + name.replace(".", "/"): (name, weight) for name, weight in model.state_dict().items()}
    for path in sorted(tensors):
        name, weight = tensors[path]
        array, encoding, layout = stored(name, weight)
        dataset = write_dataset(file, path, array)
        dataset.attrs["shape"] = np.array(weight.shape, dtype=np.int64)
        dataset.attrs.create("encoding", encoding, dtype=string)
        dataset.attrs.create("layout", layout, dtype=string)
        digest.update(f"{path}\n{encoding} {layout} {'x'.join(map(str, weight.shape))}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_model(model: Model, source: str, out: Path) -> None:
    temporary = out.with_name(out.name + ".part")
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_alignment(1, 64)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    string = h5py.string_dtype("utf-8")
    with h5py.File(h5py.h5f.create(str(temporary).encode(), h5py.h5f.ACC_TRUNC, fapl=access)) as file:
        file.attrs["plait_format"] = 1
        for key, text in {"card": json.dumps(model.card), "created_by": "plait tools/train", "source": source,
                          "sha256": write_tensors(file, model)}.items():
            file.attrs.create(key, text, dtype=string)
    os.replace(temporary, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of train.py")
    parser.add_argument("out", type=Path, help="model file to write (.h5)")
    options = parser.parse_args()
    model = load_model(options.checkpoint)
    fingerprint = hashlib.sha256(options.checkpoint.read_bytes()).hexdigest()
    write_model(model, f"tools/train checkpoint sha256 {fingerprint}", options.out)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{options.out}: {parameters} parameters, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
