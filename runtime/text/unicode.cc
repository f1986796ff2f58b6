#include "runtime/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/text/unicode_age.h"

namespace plait::unicode {
namespace {

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

bool between(utf8proc_category_t c, utf8proc_category_t low, utf8proc_category_t high) {
  return low <= c && c <= high;
}

using Characters = std::vector<utf8proc_int32_t>;

Characters decomposed(std::string_view text, int options) {
  Characters out;
  out.reserve(text.size());
  utf8proc_int32_t parts[32];  // the longest decomposition has 18 characters
  int boundary = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next(text, at));
    const auto count =
        utf8proc_decompose_char(c, parts, 32, static_cast<utf8proc_option_t>(options), &boundary);
    if (count < 0 || count > 32) fail("character ", c, " cannot be decomposed");
    out.insert(out.end(), parts, parts + count);
  }
  return out;
}

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// The canonical order: every run of combining marks stably sorted by class. utf8proc's own sort is quadratic.
void reorder(Characters& text) {
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    if (combining_class(text[begin]) == 0) continue;
    std::size_t end = begin;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(begin),
                     text.begin() + static_cast<std::ptrdiff_t>(end),
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

// Nothing below U+00A0 changes in any form, nothing below U+0300 in NFC.
bool unchanged(std::string_view text, Form form) {
  const unsigned char limit = form == Form::nfc ? 0xCC : 0xC2;
  return std::all_of(text.begin(), text.end(), [limit](char byte) {
    const auto b = static_cast<unsigned char>(byte);
    return b < limit;
  });
}

void append_normalised(std::string& out, std::string_view text, Form form) {
  const bool compose = form == Form::nfc || form == Form::nfkc;
  const bool compatible = form == Form::nfkc || form == Form::nfkd;
  const int decompose = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0);
  Characters characters = decomposed(text, decompose);
  reorder(characters);
  auto count = static_cast<utf8proc_ssize_t>(characters.size());
  if (compose)
    count = utf8proc_normalize_utf32(characters.data(), count,
                                     static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  for (utf8proc_ssize_t i = 0; i < count; ++i)
    append(out, static_cast<char32_t>(characters[static_cast<std::size_t>(i)]));
}

}  // namespace

char32_t next(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  const char32_t lead = byte(at);
  const std::size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t c = length == 1 ? lead : lead & (0xFF >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) c = c << 6 | (byte(at + i) & 0x3F);
  at += length;
  return c;
}

std::size_t before(std::string_view text, std::size_t at) {
  do --at;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

void append(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_number(char32_t c) { return between(category(c), UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO); }

// What tokenizers asks its tables of Unicode 8: added since are none of these, and a few were others then.

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c > 0x20 && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 0x7F);
  if (c == 0x166D || c == 0x111C9) return true;
  return between(category(c), UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO) && !since_unicode_9(c);
}

bool is_nonspacing_mark(char32_t c) {
  if (c == 0x1734) return true;
  if (c == 0x1885 || c == 0x1886 || c == 0xA9BD || c == 0x111C9) return false;
  return category(c) == UTF8PROC_CATEGORY_MN && !since_unicode_9(c);
}

bool is_other(char32_t c) {
  return between(category(c), UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CO) && !since_unicode_9(c);
}

// The tables of its normalization are of Unicode 9.
bool is_mark(char32_t c) {
  if (c == 0x1CF2 || c == 0x1CF3) return true;
  if (c == 0x111C9) return false;
  return between(category(c), UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME) && !since_unicode_10(c);
}

bool is_word(char32_t c) {
  const auto found = category(c);
  const bool circled = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                       (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  return between(found, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_NL) || found == UTF8PROC_CATEGORY_PC ||
         c == 0x200C || c == 0x200D || circled;
}

std::string lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next(text, at);
    if (c < 0x80) {
      out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    } else if (c == 0x130) {
      out += "i\xCC\x87";  // the one character whose lower case is two
    } else {
      append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

// Characters tokenizers' tables do not have stay as they are, and nothing is ordered or composed across them.
std::string normalise(std::string_view text, Form form) {
  if (unchanged(text, form)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    if (!since_unicode_10(next(text, at))) continue;
    append_normalised(out, text.substr(done, begin - done), form);
    out += text.substr(begin, at - begin);
    done = at;
  }
  append_normalised(out, text.substr(done), form);
  return out;
}

}  // namespace plait::unicode
