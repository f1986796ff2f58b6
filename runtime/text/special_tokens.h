// bos and eos, as a tokenizer's files name them.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "runtime/text/tokenizer.h"

namespace plait {

// From generation_config.json (ids), else from tokenizer_config.json (texts, looked up by `id_of`). Ids
// outside [0, limit) and texts nobody knows are errors naming `origin`.
SpecialTokens find_special_tokens(const TokenizerFiles& files, const std::string& origin, Index limit,
                                  const std::function<std::optional<Token>(const std::string&)>& id_of);

}  // namespace plait
