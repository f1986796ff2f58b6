// Settings, tensors and twin of `head` (layers/blocks/head.md).
#pragma once

#include <memory>
#include <vector>

#include "layers/reference/twin.h"
#include "runtime/graph/config.h"

namespace plait {

struct HeadSettings {
  Index width = 0, vocab = 0;
  double multiplier = 1;
  double softcap = 0;  // 0 = off
};

HeadSettings read_head(Config& config);  // ends with config.finish()
std::vector<TensorSpec> head_tensors(const HeadSettings& settings);
std::shared_ptr<Twin> make_head_twin(Config& config, const Parameters& parameters);

}  // namespace plait
