// Characters whose upper or title case is more than one character (SpecialCasing.txt of Unicode 14, the part
// that holds in every language).
#pragma once

#include <string_view>

namespace plait {

struct SpecialCasing {
  char32_t character;
  std::u32string_view upper, title;
};

// Null if the simple mappings hold.
const SpecialCasing* special_casing(char32_t character);

}  // namespace plait
