// One HDF5 file holds a whole model: card, tensors, tokenizer (the contract is weights/README.md).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/run/model.h"

namespace plait {

// Reads card, tensors and tokenizer. Datasets that can be mapped are mapped (no copy; the file must not be
// changed in place while the model lives, replacing it is fine); everything else is read. The file is first
// walked in a child process (weights/probe.h), so call it before threads are started where that is possible.
// Throws Error naming the file and dataset for anything damaged, foreign, unsupported or larger than the
// memory available.
ModelData read_model_file(const std::string& path);
std::shared_ptr<const Model> load(const std::string& path);

// Where tensor `name` of node `node` lies: "/blocks/3/mixer/q".
std::string tensor_path(const std::string& node, const std::string& name);

// Writes tensor by tensor, so that a model larger than memory can be made: begin, add.., finish. Written
// beside its place and renamed by finish(); a writer destroyed before finish() leaves nothing behind. Throws
// Error (disk full, no permission, a name given twice); after an Error only destroy it.
class ModelWriter {
 public:
  ModelWriter(const std::string& path, const Json& card, const std::string& source);
  ~ModelWriter();
  ModelWriter(const ModelWriter&) = delete;
  ModelWriter& operator=(const ModelWriter&) = delete;
  // dataset /<node with slashes>/<name>. `tensor` is written as it is (rows or panels).
  void add(const std::string& node, const std::string& name, const Tensor& tensor);
  void add_tokenizer_file(const std::string& name, const std::string& bytes);
  void add_published_file(const std::string& name, const std::string& bytes);  // under /published
  std::string finish();                                                        // returns the digest

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Recomputes the digest over all tensors and compares it with the stored one; throws Error on a difference.
void check_digest(const std::string& path);

}  // namespace plait
