// A model of Qwen3.5-0.8B shapes with random bf16 weights (bench/qwen3_5_0_8b.json), in a file that goes
// away.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "runtime/base/error.h"
#include "weights/initialise.h"

namespace plait {

enum class ModelSize { full, smoke };  // smoke: two blocks, a small vocabulary

// The file lives as long as this object.
class TemporaryModel {
 public:
  explicit TemporaryModel(ModelSize size) {
    path_ = std::filesystem::temp_directory_path() / cat("plait-bench-", ::getpid(), ".h5");
    std::ifstream file(std::string(PLAIT_SOURCE_DIR) + "/bench/qwen3_5_0_8b.json");
    Json card = Json::parse(file);
    if (size == ModelSize::smoke) {
      card["vocab"] = 2048;
      card["pattern"] = {"linear", "full"};
    }
    write_random_model(card, path_.string(), 1, DType::bf16, {});
  }
  ~TemporaryModel() { std::filesystem::remove(path_); }
  TemporaryModel(const TemporaryModel&) = delete;
  TemporaryModel& operator=(const TemporaryModel&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace plait
