#include "runtime/text/byte_fallback.h"

#include <charconv>
#include <cstdio>

namespace plait {

std::array<Token, 256> byte_fallback_tokens(const Vocabulary& vocabulary) {
  std::array<Token, 256> tokens{};
  for (unsigned b = 0; b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", b);
    tokens[b] = vocabulary.find(text).value_or(-1);
  }
  return tokens;
}

std::optional<unsigned char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  const char* digits = token.data() + 3;
  const auto [end, error] = std::from_chars(digits, digits + 2, value, 16);
  if (error != std::errc() || end != digits + 2) return std::nullopt;
  return static_cast<unsigned char>(value);
}

}  // namespace plait
