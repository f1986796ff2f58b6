// A tokenizer.json taken apart, and the bytes of /tokenizer/compiled: the parts in a form that loads without
// parsing. weights/README.md describes them.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/text/subword_json.h"

namespace plait {

struct TokenizerParts {
  nlohmann::json settings;  // the whole file without the tables of its model
  SubwordTables tables;
};

// Throws Error naming `where` for what is no JSON or has no readable model.
TokenizerParts parse_parts(const std::string& text, const std::string& where);

// `source` is the tokenizer.json the parts are of.
std::string write_compiled(const TokenizerParts& parts, std::string_view source);
// The preamble that belongs to `contents`, and they.
std::string seal_compiled(std::string_view contents, std::string_view source);
// Nothing where `bytes` are of another version or made of another text than `source`. Throws Error naming
// `where` for damaged bytes, and for tables that contradict themselves: sizes, ids, texts, scores.
std::optional<TokenizerParts> read_compiled(std::string_view bytes, std::string_view source,
                                            const std::string& where);

}  // namespace plait
