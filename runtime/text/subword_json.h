// The "model" of a tokenizer.json.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/text/subword.h"

namespace plait {

// Throws Error naming `where` for what this plait does not know: another type, key, dropout.
std::unique_ptr<const Subword> make_subword(const nlohmann::json& json, const std::string& where);

}  // namespace plait
