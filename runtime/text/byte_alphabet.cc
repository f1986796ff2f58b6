#include "runtime/text/byte_alphabet.h"

#include <array>

#include "runtime/text/unicode.h"

namespace plait {
namespace {

struct Alphabet {
  std::array<std::string, 256> spelling;
  std::array<int, 0x144> byte;  // by character; -1: none

  Alphabet() {
    byte.fill(-1);
    char32_t spare = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = itself ? static_cast<char32_t>(b) : spare++;
      unicode::append(spelling[static_cast<std::size_t>(b)], c);
      byte[c] = b;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet table;
  return table;
}

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  const Alphabet& table = alphabet();
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) out += table.spelling[static_cast<unsigned char>(byte)];
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  const Alphabet& table = alphabet();
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = unicode::next(text, at);
    if (c >= table.byte.size() || table.byte[c] < 0) return std::nullopt;
    out += static_cast<char>(table.byte[c]);
  }
  return out;
}

}  // namespace plait
