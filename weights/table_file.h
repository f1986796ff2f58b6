// Columns of numbers as an HDF5 file, one dataset each: what `score --per-token` writes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace plait {

// Written beside its place and renamed by finish(); destroyed before, it leaves nothing behind. Throws Error.
class TableFile {
 public:
  explicit TableFile(const std::string& path);
  ~TableFile();
  TableFile(const TableFile&) = delete;
  TableFile& operator=(const TableFile&) = delete;

  // Dataset /<name> [values.size()], 64-bit. All columns must have the same length.
  void add(const std::string& name, std::span<const std::int64_t> values);
  void add(const std::string& name, std::span<const double> values);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plait
