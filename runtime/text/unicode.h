// Characters and their classes. Tables are libutf8proc's (Unicode 15.0 in Debian 12); where tokenizers asks
// older tables, without what they do not have.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace plait::unicode {

// The character at `at` of well-formed UTF-8; moves `at` behind it.
char32_t next(std::string_view text, std::size_t& at);
// Where the character before `at` begins; at > 0.
std::size_t before(std::string_view text, std::size_t at);
void append(std::string& text, char32_t c);

bool is_white_space(char32_t c);  // property White_Space
bool is_number(char32_t c);       // categories Nd, Nl, No
bool is_word(char32_t c);         // what \w means: letters, marks, decimal digits, connectors, joiners
// Of Unicode 8:
bool is_punctuation(char32_t c);  // categories P*, and ASCII's 32 punctuation characters
bool is_nonspacing_mark(char32_t c);
bool is_other(char32_t c);  // categories Cc, Cf, Co: control, format, private
// Of Unicode 9:
bool is_mark(char32_t c);  // categories M*

std::string lower(std::string_view text);  // character by character, without context

enum class Form { nfc, nfd, nfkc, nfkd };
// Normal forms of Unicode 9. Linear in the text, whatever runs of combining marks it has.
std::string normalise(std::string_view text, Form form);

}  // namespace plait::unicode
