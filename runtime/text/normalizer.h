// The first stage of a tokenizer: text to text.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/text/growth.h"

namespace plait {

struct Normalized {
  std::string text;
  bool whole_start = true;                        // false when characters at the beginning were taken away
  std::size_t limit = growth_limit(text.size());  // bytes; what makes the text longer is an Error
};

// Immutable; shared by threads. `text` is well-formed UTF-8 and stays so.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(Normalized& text) const = 0;
};

// null gives a normalizer that changes nothing. Throws Error naming `where` for what this plait does not
// know.
std::unique_ptr<const Normalizer> make_normalizer(const nlohmann::json& json, const std::string& where);

}  // namespace plait
