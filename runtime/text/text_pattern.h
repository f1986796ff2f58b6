// {"String": s} or {"Regex": r}, as Replace and Split name what they look for.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/text/regex.h"

namespace plait {

class TextPattern {
 public:
  // Throws Error naming `where`; an empty string is refused.
  TextPattern(const nlohmann::json& json, const std::string& where);
  std::vector<Range> matches(std::string_view text) const;
  // `at_start` (may be null) tells whether a match began the text. Throws Error for more than `limit` bytes.
  std::string replace(std::string_view text, std::string_view content, std::size_t limit,
                      bool* at_start) const;

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace plait
