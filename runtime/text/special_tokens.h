// The special tokens a tokenizer's files name: the one place that reads them.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "runtime/text/tokenizer.h"

namespace plait {

// Texts by role ("bos_token", "eos_token", ..), of tokenizer_config.json, else of special_tokens_map.json. A
// role whose token is null is left out. Throws Error naming `origin` and the file.
std::map<std::string, std::string> special_texts(const TokenizerFiles& files, const std::string& origin);

// eos: the token of special_texts, then all ids of generation_config.json's eos_token_id. bos: the token of
// special_texts, else that file's. `id_of` knows which token a text is. Throws Error naming `origin` for an
// id outside [0, limit).
SpecialTokens find_special_tokens(const TokenizerFiles& files, const std::string& origin, Index limit,
                                  const std::function<std::optional<Token>(const std::string&)>& id_of);

}  // namespace plait
