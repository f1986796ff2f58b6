// Arrays of numbers as an HDF5 file, one dataset each: `score --per-token`, a study's tokens.h5.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "runtime/base/view.h"

namespace plait {

// Written beside its place and renamed by finish(); destroyed before, it leaves nothing behind. Throws Error.
class ArrayFile {
 public:
  explicit ArrayFile(const std::string& path);
  ~ArrayFile();
  ArrayFile(const ArrayFile&) = delete;
  ArrayFile& operator=(const ArrayFile&) = delete;

  // Dataset /<name> of this shape, row-major. Throws Error when the values are not as many as the shape says.
  void add(const std::string& name, const Shape& shape, std::span<const std::int64_t> values);
  void add(const std::string& name, const Shape& shape, std::span<const std::int32_t> values);
  void add(const std::string& name, const Shape& shape, std::span<const double> values);
  void add(const std::string& name, const Shape& shape, std::span<const float> values);
  void add(const std::string& name, const Shape& shape, std::span<const std::uint8_t> values);
  // A column: one dimension, as long as there are values.
  template <class T>
  void add(const std::string& name, const std::vector<T>& values) {
    add(name, {static_cast<Index>(values.size())}, std::span<const T>(values));
  }
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plait
