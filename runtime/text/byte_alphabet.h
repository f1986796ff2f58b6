// Byte-level tokenizers spell each byte as one printable character: '!'..'~', U+00A1..U+00AC, U+00AE..U+00FF
// stand for themselves, the other 68 bytes in ascending order for U+0100..U+0143 (GPT-2).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace plait {

std::string to_byte_alphabet(std::string_view bytes);
// Nothing if a character stands for no byte. `text` is well-formed UTF-8.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace plait
