#include "runtime/text/utf8.h"

#include <cstdint>
#include <cstring>

namespace plait {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Length of the character a lead byte begins, and the range of its second byte; length 0: no lead byte.
struct Lead {
  std::size_t bytes;
  std::uint8_t low, high;
};

Lead lead_of(std::uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};  // continuations, and two-byte forms of ASCII
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};  // no overlong forms
  if (byte == 0xED) return {3, 0x80, 0x9F};  // no surrogates
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};  // no overlong forms
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};  // up to U+10FFFF
  return {0, 0, 0};
}

// Bytes of whole, well-formed characters a text begins with.
std::size_t valid_bytes(std::string_view text) {
  std::size_t at = 0;
  for (;;) {
    std::uint64_t eight = 0;
    while (at + sizeof eight <= text.size()) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if (eight & 0x8080808080808080u) break;  // not ASCII alone
      at += sizeof eight;
    }
    const Utf8Prefix prefix = first_character(text.substr(at));
    if (prefix.state != Utf8Prefix::State::character) return at;
    at += prefix.bytes;
  }
}

}  // namespace

bool is_valid_utf8(std::string_view text) { return valid_bytes(text) == text.size(); }

Utf8Prefix first_character(std::string_view text) {
  using State = Utf8Prefix::State;
  if (text.empty()) return {State::incomplete, 0};
  const Lead lead = lead_of(static_cast<std::uint8_t>(text[0]));
  if (lead.bytes == 0) return {State::ill_formed, 1};
  for (std::size_t i = 1; i < lead.bytes; ++i) {
    if (i == text.size()) return {State::incomplete, i};
    const auto byte = static_cast<std::uint8_t>(text[i]);
    const std::uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {State::ill_formed, i};
  }
  return {State::character, lead.bytes};
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string out;
  std::string_view rest = pending_;
  for (;;) {
    const std::size_t valid = valid_bytes(rest);
    out += rest.substr(0, valid);
    rest.remove_prefix(valid);
    const Utf8Prefix prefix = first_character(rest);
    if (prefix.state == Utf8Prefix::State::incomplete) break;
    out += kReplacement;
    rest.remove_prefix(prefix.bytes);
  }
  pending_ = std::string(rest);
  return out;
}

std::string Utf8Stream::finish() {
  const bool left = !pending_.empty();
  pending_.clear();
  return left ? std::string(kReplacement) : std::string();
}

std::string to_valid_utf8(std::string_view text) {
  Utf8Stream stream;
  std::string out = stream.push(text);
  out += stream.finish();
  return out;
}

}  // namespace plait
