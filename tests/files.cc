#include "tests/files.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "tests/testing.h"
#include "weights/model_file.h"

namespace plait::testing {

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "plait-files-XXXXXX").string();
  if (!::mkdtemp(name.data())) fail("cannot make a temporary folder");
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> Folder::names() const {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(path_))
    all.push_back(entry.path().filename().string());
  std::sort(all.begin(), all.end());
  return all;
}

std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::filesystem::remove(
      path);  // a file cut and rewritten would be flushed to the disk by some file systems
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

Json small_card() { return card_of_kind("gated_mlp", {{"hidden", 33}}); }

std::string write_model(const std::string& path, const ModelData& data) {
  ModelWriter writer(path, data.card, data.source);
  for (const auto& [node, tensors] : data.tensors)
    for (const auto& [name, tensor] : tensors) writer.add(node, name, tensor);
  for (const auto& [name, bytes] : data.tokenizer) writer.add_tokenizer_file(name, bytes);
  return writer.finish();
}

bool same_tensors(const ModelData& a, const ModelData& b) {
  if (a.tensors.size() != b.tensors.size()) return false;
  for (const auto& [node, tensors] : a.tensors) {
    const auto other = b.tensors.find(node);
    if (other == b.tensors.end() || tensors.size() != other->second.size()) return false;
    for (const auto& [name, x] : tensors) {
      const auto found = other->second.find(name);
      if (found == other->second.end()) return false;
      const Tensor& y = found->second;
      if (x.shape != y.shape || x.dtype != y.dtype || x.layout != y.layout || x.bytes != y.bytes ||
          std::memcmp(x.data, y.data, x.bytes) != 0)
        return false;
    }
  }
  return true;
}

}  // namespace plait::testing
