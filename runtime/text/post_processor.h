// The last stage of encoding: the tokens a tokenizer puts around those of a text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/base/view.h"

namespace plait {

struct PostProcessor {
  std::vector<Token> before, after;
};

// null adds nothing. Ids must lie in [0, limit). Throws Error naming `where` for what this plait does not
// know.
PostProcessor make_post_processor(const nlohmann::json& json, const std::string& where, Index limit);

}  // namespace plait
