// Snapshots of streams on disk: HDF5 (attribute plait_snapshot = 1) closed by a 64-byte trailer (magic,
// length, SHA-256 of everything before it) that is checked before HDF5 sees the file.
#pragma once

#include <string>

#include "runtime/run/stream.h"

namespace plait {

// Written beside its place, flushed to the disk and renamed. Throws Error (disk full, no permission) leaving
// any earlier file of that name untouched.
void save_snapshot(const std::string& path, const Snapshot& snapshot);
// Throws Error naming what is wrong: not a snapshot, truncated, damaged, other version.
Snapshot load_snapshot(const std::string& path);

// Which of plait's files this is, decided without trusting its contents.
enum class FileKind { model, snapshot, other };
FileKind file_kind(const std::string& path);

}  // namespace plait
