// safetensors files: tensors by name behind a JSON header. Nothing in a header is believed before it is
// checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/tensor.h"

namespace plait {

// One tensor as a header describes it.
struct SafetensorsEntry {
  std::string type;                  // the format's own name: "F32", "BF16", "I64", ..
  Shape shape;                       // row-major
  std::uint64_t begin = 0, end = 0;  // bytes behind the header
};

// Reads the header's JSON; `data_bytes` follow it in the file. Throws Error starting with `where` for: bad
// JSON, a name given twice, an unknown type, a negative or overflowing shape, offsets that do not fit the
// shape, are not aligned to the element, overlap, leave holes or bytes behind the last tensor.
std::map<std::string, SafetensorsEntry> parse_safetensors_header(std::string_view json,
                                                                 std::uint64_t data_bytes,
                                                                 const std::string& where);

// The tensors of a checkpoint, mapped read only; the files must not be changed while it lives.
class Safetensors {
 public:
  // A single file.
  static Safetensors open(const std::string& path);
  // model.safetensors, or the shards model.safetensors.index.json lists. Throws Error when a shard is
  // missing, or when index and shards disagree on what is where.
  static Safetensors open_folder(const std::string& folder);

  struct Entry {
    std::string type;
    Shape shape;
    std::span<const std::byte> bytes;  // not necessarily aligned
    std::string file;
  };
  const std::map<std::string, Entry>& tensors() const { return tensors_; }

  // What plait computes with: F32, BF16 and F16 as DType. Throws Error naming file, tensor and type for
  // others.
  static DType dtype_of(const std::string& name, const Entry& entry);

  // Pages of this tensor may leave memory; they come back when read again.
  static void release(const Entry& entry);

 private:
  void add(const std::string& path);
  std::map<std::string, Entry> tensors_;
  std::vector<std::shared_ptr<const void>> files_;  // mappings
};

// Writes a file of known contents: the header first, then the tensors' bytes in the order of `order()`.
class SafetensorsWriter {
 public:
  struct Item {
    std::string name;
    DType dtype = DType::f32;  // f32, bf16 or f16
    Shape shape;
  };

  // Into the existing file `path`, called `shown` in messages. The same items give the same header: tensors
  // lie in order of element size, wide first, then name; data begin at a multiple of 64. Throws Error (full
  // disk).
  SafetensorsWriter(const std::string& path, const std::string& shown, std::vector<Item> items);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  const std::vector<Item>& order() const { return items_; }
  void append(std::span<const std::byte> bytes);
  void finish();  // asserts that every byte was appended

 private:
  std::string shown_;
  std::vector<Item> items_;
  int file_ = -1;
  std::uint64_t left_ = 0;
};

}  // namespace plait
