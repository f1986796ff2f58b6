// Small published checkpoints made up by the tests, written out from the tables of the families' papers and
// code and not with plait's own writer.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/base/tensor.h"
#include "runtime/graph/config.h"

namespace plait::testing {

struct PublishedTensor {
  std::string type;  // "F32", "BF16", "F16", "I64", ..
  Shape shape;
  std::string bytes;
};
using PublishedTensors = std::map<std::string, PublishedTensor>;

// A file with this header, as it stands, and these bytes behind it.
std::string safetensors_bytes(const std::string& header, const std::string& data);
std::string safetensors_bytes(const PublishedTensors& tensors);
// Reads such a file back, by this file's own few lines.
PublishedTensors parse_safetensors(const std::string& bytes);

struct Checkpoint {
  Json config;
  PublishedTensors tensors;

  void add(const std::string& name, const Shape& shape, const std::string& type);  // random values
  // All floating tensors in `type`, rounded.
  void retype(const std::string& type);
  void rename_prefix(const std::string& from, const std::string& to);
  void write(const std::string& folder) const;                            // config.json, model.safetensors
  void write_shards(const std::string& folder, std::size_t count) const;  // with an index
};

// Awkward sizes, several kinds of layers, every option of the family that has tensors of its own.
enum class Tie { own, tied };
Checkpoint tiny_qwen3_5(
    Tie tie);  // bf16 with f32 A_log and norm, prefix "model.language_model.", mtp.*, vision tensors
Checkpoint tiny_falcon_h1(Tie tie);  // f32; grouped norm, all biases, all multipliers different
Checkpoint tiny_qwen2(Tie tie);      // bf16

}  // namespace plait::testing
