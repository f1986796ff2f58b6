#!/usr/bin/env python3
"""Holds every #include against the floor plan: which room may include which, and which may use what library.

Usage: check_includes.py SOURCE_DIR. Prints one line per violation; exits 1 if there is any.
"""

import pathlib
import re
import sys

EVERYTHING = ["runtime/", "layers/", "weights/", "tools/", "tests/", "bench/"]
FAST_LAYERS = ["runtime/base/", "runtime/kernels/", "runtime/run/", "runtime/graph/config.h", "layers/reference/"]

# Room: the rooms and headers it may include besides its own. The longest prefix of a file's path is its room.
ROOMS = {
    "runtime/base/": [],
    "runtime/kernels/": ["runtime/base/"],
    "runtime/graph/": ["runtime/base/"],
    "runtime/run/": ["runtime/base/", "runtime/graph/"],
    "runtime/text/": ["runtime/base/"],
    "layers/attention/": FAST_LAYERS,
    "layers/recurrent/": [*FAST_LAYERS, "layers/attention/"],  # kinds of both sorts: path_attention, nats_l
    "layers/blocks/": FAST_LAYERS,
    "layers/reference/": ["runtime/base/", "runtime/graph/config.h"],
    "layers/builtin.cc": ["layers/", "runtime/run/", "runtime/kernels/", "runtime/base/"],
    "weights/": ["runtime/base/", "runtime/graph/", "runtime/run/"],
    "tools/": ["runtime/", "layers/", "weights/"],
    "tests/": EVERYTHING,
    "bench/": EVERYTHING,
}

# Library header (by prefix): who may include it.
LIBRARIES = {
    "omp.h": ["runtime/base/parallel.cc"],
    "openssl/": ["runtime/base/"],
    "immintrin.h": ["runtime/base/", "runtime/kernels/"],
    "xmmintrin.h": ["runtime/base/", "runtime/kernels/"],
    "nlohmann/": ["runtime/graph/", "runtime/text/", "weights/", "tools/", "tests/", "bench/"],
    "pcre2": ["runtime/text/"],
    "utf8proc": ["runtime/text/"],
    "sentencepiece": ["runtime/text/"],
    "Eigen/": ["layers/reference/", "tools/probe/", "tests/", "bench/"],
    "unsupported/Eigen/SpecialFunctions": ["tools/ablate/"],
    "cblas": ["layers/reference/", "tests/", "bench/"],
    "hdf5": ["weights/", "tests/"],
    "H5": ["weights/", "tests/"],
    "zlib.h": ["tools/"],
    "sqlite3": ["weights/"],
    "CLI/": ["tools/", "bench/"],
    "yaml-cpp/": ["tools/"],
    "gtest/": ["tests/"],
    "gmock/": ["tests/"],
    "benchmark/": ["bench/"],
    "sanitizer/": ["tests/fuzz/"],
    "dnnl": ["bench/"],
    "oneapi/": ["bench/"],
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# The standard library has no extension; C and POSIX headers are few and plain.
PLAIN = re.compile(r"^([a-z0-9_]+|(sys|linux)/[a-z0-9_]+\.h|"
                   r"(unistd|fcntl|errno|fenv|math|poll|pthread|sched|signal|spawn|stddef|stdint|stdio|stdlib|string|time)\.h)$")


def room_of(path):
    rooms = [room for room in ROOMS if path.startswith(room)]
    return max(rooms, key=len) if rooms else None


def violation(path, quote, target):
    """Why `path` may not include `target`; None if it may."""
    room = room_of(path)
    if room is None:
        return "the file lies in no room of the floor plan"
    if target.startswith(tuple(EVERYTHING)):
        allowed = [room] + ROOMS[room]
        return None if target.startswith(tuple(allowed)) else f"{room} may not include {room_of(target) or target}"
    for library, users in LIBRARIES.items():
        if target.startswith(library):
            return None if path.startswith(tuple(users)) else f"only {', '.join(users)} may include {library}"
    if quote == '"':
        return "project headers are named from the source folder"
    return None if PLAIN.match(target) else "the header belongs to no library of the table"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    files = [f for folder in EVERYTHING for f in sorted((root / folder).rglob("*")) if f.suffix in (".h", ".cc", ".inc")]
    files = [f for f in files if "violation" not in f.relative_to(root).parts and "consumer" not in f.parts]
    count = 0
    for file in files:
        path = file.relative_to(root).as_posix()
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            why = match and violation(path, *match.groups())
            if why:
                print(f"{path}:{number}: {match.group(2)}: {why}")
                count += 1
    print(f"{len(files)} files, {count} violations of the floor plan")
    return 1 if count or not files else 0


if __name__ == "__main__":
    sys.exit(main())
