// Published checkpoints become model files, and model files become checkpoints again.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/tensor.h"

namespace plait {

// Constant factors of a family (Falcon-H1's): settings of the nodes, or multiplied into the weights, which
// rounds in the weights' type.
enum class Multipliers { settings, folded };

struct ConvertOptions {
  std::optional<DType>
      dtype;  // of matrices, f32 or bf16; absent: as stored. Everything else is f32 in the file
  Multipliers multipliers = Multipliers::settings;
  std::function<void(double fraction)> progress;  // in (0, 1], ascending
  // Of the tokenizer's files: the bytes of /tokenizer/compiled, empty for none. What it throws stops the
  // conversion before anything is written; absent: files are kept unread.
  std::function<std::string(const std::map<std::string, std::string>& files)> compile_tokenizer;
};

struct Conversion {
  std::string family;
  Index parameters = 0;  // of the graph; what is kept aside is counted in the notes
  std::map<std::string, Index> nodes_by_kind;
  std::vector<std::string> notes;  // one sentence each: defaults taken, tensors left out or kept aside
  std::string digest;
};

// Reads the Hugging Face folder `folder` (config.json, *.safetensors, tokenizer files) and writes the model
// file `destination`, one tensor in memory at a time. Throws Error naming the file, key or tensor for
// anything that is damaged, unknown or contradictory, and when memory or disk will not do; then nothing is
// written.
Conversion convert_checkpoint(const std::string& folder, const std::string& destination,
                              const ConvertOptions& options);

// Writes model file `path` as such a folder: model.safetensors in plain rows, config.json, tokenizer files. A
// model of a family that convert_checkpoint reads gets that family's names and layout, and every f32 or bf16
// tensor has the bytes it came with; any other model gets plait's names, and its card as config.json.
// Converting the folder again gives the same digest. `folder` must be absent or empty; it appears whole or
// not at all.
void export_checkpoint(const std::string& path, const std::string& folder,
                       const std::function<void(double fraction)>& progress = {});

}  // namespace plait
