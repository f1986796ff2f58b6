// JSON and names that come from files: checked before anything believes them.
#pragma once

#include <string>
#include <string_view>

#include "runtime/graph/config.h"

namespace plait {

bool is_utf8(std::string_view text);  // well-formed, no surrogates, no overlong forms

// For messages: one line, valid UTF-8, at most 200 bytes; anything else becomes \xNN.
std::string printable(std::string_view text);

// Parses JSON of at most 16 MiB, nested at most 64 deep, in valid UTF-8 without NUL and without a key given
// twice in one object. Throws Error: "<what> is not valid JSON: ...".
Json parse_json(std::string_view text, const std::string& what);

}  // namespace plait
