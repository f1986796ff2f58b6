// Well-formed UTF-8 (The Unicode Standard, table 3-7), byte by byte.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace plait {

// What a text begins with.
struct Utf8Prefix {
  enum class State {
    character,   // a well-formed character of `bytes` bytes
    incomplete,  // the beginning of one: all `bytes` bytes of the text
    ill_formed,  // `bytes` bytes that no continuation makes a character: to be replaced as one
  };
  State state;
  std::size_t bytes;  // 0 only when the text is empty (then incomplete)
};
Utf8Prefix first_character(std::string_view text);

bool is_valid_utf8(std::string_view text);

// Each ill-formed stretch becomes one U+FFFD, an incomplete end too.
std::string to_valid_utf8(std::string_view text);

// Turns bytes that arrive in pieces into well-formed UTF-8: a character appears when its last byte has come.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  // the characters completed by them
  std::string finish();                      // U+FFFD if a character was left incomplete, else nothing

 private:
  std::string pending_;  // at most 3 bytes
};

}  // namespace plait
