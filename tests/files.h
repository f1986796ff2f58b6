// What the file tests share: a folder that goes away, whole files as bytes, and the sentence of an Error.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/run/model.h"

namespace plait::testing {

class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  std::vector<std::string> names() const;  // sorted

 private:
  std::filesystem::path path_;
};

std::string read_bytes(const std::string& path);
void write_bytes(const std::string& path, const std::string& bytes);

// The message of the Error that `f` throws; "" if it throws none.
template <class F>
std::string sentence(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A model of one small node with odd sizes, so that panels have padding.
Json small_card();
// Writes `data` as a model file; returns the digest.
std::string write_model(const std::string& path, const ModelData& data);
// The same shapes, dtypes, layouts and bytes.
bool same_tensors(const ModelData& a, const ModelData& b);

}  // namespace plait::testing
