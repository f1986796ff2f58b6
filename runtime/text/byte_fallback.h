// Tokens <0x00> to <0xFF> stand for bytes: what no other token spells.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "runtime/text/vocabulary.h"

namespace plait {

std::array<Token, 256> byte_fallback_tokens(const Vocabulary& vocabulary);  // -1 where there is none
std::optional<unsigned char> fallback_byte(std::string_view token);         // of a token's text

}  // namespace plait
