#include "runtime/text/python_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <iterator>

#include "runtime/text/special_casing.h"
#include "runtime/text/utf8.h"

namespace plait::python {
namespace {

struct Range {
  char32_t first, last;
};

constexpr Range kSpaces[] = {{0x9, 0xD},       {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                             {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                             {0x205F, 0x205F}, {0x3000, 0x3000}};
// Unicode's Other_Lowercase and Other_Uppercase.
constexpr Range kOtherLower[] = {
    {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2B0, 0x2B8},     {0x2C0, 0x2C1},    {0x2E0, 0x2E4},
    {0x345, 0x345},     {0x37A, 0x37A},     {0x1D2C, 0x1D6A},   {0x1D78, 0x1D78},  {0x1D9B, 0x1DBF},
    {0x2071, 0x2071},   {0x207F, 0x207F},   {0x2090, 0x209C},   {0x2170, 0x217F},  {0x24D0, 0x24E9},
    {0x2C7C, 0x2C7D},   {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F8, 0xA7F9},  {0xAB5C, 0xAB5F},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA}};
constexpr Range kOtherUpper[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
// Numeric_Type=Digit: digits that are no decimal digits.
constexpr Range kOtherDigits[] = {
    {0xB2, 0xB3},     {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},   {0x2070, 0x2070},
    {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247C},   {0x2488, 0x2490},
    {0x24EA, 0x24EA}, {0x24F5, 0x24FD},   {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},
    {0x278A, 0x2792}, {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};
// Word_Break MidLetter, MidNumLet and Single_Quote: a final sigma looks past them.
constexpr Range kInsideWords[] = {{0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
                                  {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
                                  {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
                                  {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A}};
constexpr char32_t kSigma = 0x3A3, kSmallSigma = 0x3C3, kFinalSigma = 0x3C2, kDottedI = 0x130;

template <std::size_t N>
bool within(const Range (&ranges)[N], char32_t c) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](const Range& range) { return range.first <= c && c <= range.last; });
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

bool is_cased(char32_t c) { return is_upper(c) || is_lower(c) || is_title(c); }

bool is_case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return within(kInsideWords, c);
  }
}

// The one rule of lower case that looks around: a sigma at the end of a word.
char32_t lower_sigma(std::u32string_view text, std::size_t at) {
  std::size_t before = at;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return kSmallSigma;
  std::size_t after = at + 1;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return after < text.size() && is_cased(text[after]) ? kSmallSigma : kFinalSigma;
}

void lower_one(std::u32string& out, std::u32string_view text, std::size_t at) {
  const char32_t c = text[at];
  if (c == kSigma) {
    out += lower_sigma(text, at);
  } else if (c == kDottedI) {
    out += U"i\u0307";
  } else {
    out += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
  }
}

void upper_one(std::u32string& out, char32_t c) {
  if (const SpecialCasing* special = special_casing(c))
    out += special->upper;
  else
    out += static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}

void title_one(std::u32string& out, char32_t c) {
  if (const SpecialCasing* special = special_casing(c))
    out += special->title;
  else
    out += static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)));
}

bool is_line_end(char32_t c) {
  return (c >= 0xA && c <= 0xD) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

template <class Taken>
std::string_view strip_if(std::string_view text, Side side, const Taken& taken) {
  const std::u32string all = wide(text);
  std::size_t first = 0, last = all.size();
  if (side != Side::right)
    while (first < last && taken(all[first])) ++first;
  if (side != Side::left)
    while (last > first && taken(all[last - 1])) --last;
  const std::size_t begin = narrow(std::u32string_view(all).substr(0, first)).size();
  return text.substr(begin, narrow(std::u32string_view(all).substr(first, last - first)).size());
}

bool one_case(std::string_view text, bool (*wanted)(char32_t), bool (*unwanted)(char32_t)) {
  bool found = false;
  for (const char32_t c : wide(text)) {
    if (unwanted(c) || is_title(c)) return false;
    found = found || wanted(c);
  }
  return found;
}

}  // namespace

std::u32string wide(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    utf8proc_int32_t c = 0;
    const auto bytes = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                        static_cast<utf8proc_ssize_t>(text.size() - at), &c);
    out += bytes > 0 ? static_cast<char32_t>(c) : U'\uFFFD';
    at += bytes > 0 ? static_cast<std::size_t>(bytes) : 1;
  }
  return out;
}

void append(std::string& text, char32_t character) {
  std::array<utf8proc_uint8_t, 4> bytes;
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes.data());
  text.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(count));
}

std::string narrow(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) append(out, c);
  return out;
}

std::size_t length(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string pick(std::string_view text, std::ptrdiff_t first, std::ptrdiff_t step, std::size_t count) {
  const std::u32string all = wide(text);
  std::string out;
  for (std::size_t i = 0; i < count; ++i, first += step) append(out, all[static_cast<std::size_t>(first)]);
  return out;
}

bool is_space(char32_t c) { return within(kSpaces, c); }
bool is_word(char32_t c) {
  const auto kind = category(c);
  return c == '_' || is_alpha(c) || is_digit(c) || kind == UTF8PROC_CATEGORY_NL ||
         kind == UTF8PROC_CATEGORY_NO;
}
bool is_printable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}
bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU || within(kOtherUpper, c); }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL || within(kOtherLower, c); }
bool is_title(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }
bool is_alpha(char32_t c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_digit(char32_t c) { return is_decimal(c) || within(kOtherDigits, c); }

std::string upper(std::string_view text) {
  std::u32string out;
  for (const char32_t c : wide(text)) upper_one(out, c);
  return narrow(out);
}

std::string lower(std::string_view text) {
  const std::u32string all = wide(text);
  std::u32string out;
  for (std::size_t i = 0; i < all.size(); ++i) lower_one(out, all, i);
  return narrow(out);
}

std::string title(std::string_view text) {
  const std::u32string all = wide(text);
  std::u32string out;
  bool inside = false;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (inside)
      lower_one(out, all, i);
    else
      title_one(out, all[i]);
    inside = is_cased(all[i]);
  }
  return narrow(out);
}

std::string capitalize(std::string_view text) {
  const std::u32string all = wide(text);
  std::u32string out;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i == 0)
      title_one(out, all[i]);
    else
      lower_one(out, all, i);
  }
  return narrow(out);
}

std::string swapcase(std::string_view text) {
  const std::u32string all = wide(text);
  std::u32string out;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (is_upper(all[i]))
      lower_one(out, all, i);
    else if (is_lower(all[i]))
      upper_one(out, all[i]);
    else
      out += all[i];
  }
  return narrow(out);
}

bool all(std::string_view text, bool (*of_class)(char32_t)) {
  const std::u32string characters = wide(text);
  return !characters.empty() && std::all_of(characters.begin(), characters.end(), of_class);
}

bool all_upper(std::string_view text) { return one_case(text, is_upper, is_lower); }
bool all_lower(std::string_view text) { return one_case(text, is_lower, is_upper); }

std::string_view strip(std::string_view text, Side side) { return strip_if(text, side, is_space); }

std::string_view strip(std::string_view text, Side side, std::string_view chars) {
  const std::u32string taken = wide(chars);
  return strip_if(text, side, [&](char32_t c) { return taken.find(c) != std::u32string::npos; });
}

std::vector<std::string> split(std::string_view text, std::ptrdiff_t limit, Side from) {
  std::u32string rest = wide(text);
  const bool backwards = from == Side::right;
  if (backwards) std::reverse(rest.begin(), rest.end());
  std::vector<std::string> pieces;
  const auto add = [&](std::u32string piece) {
    if (backwards) std::reverse(piece.begin(), piece.end());
    pieces.push_back(narrow(piece));
  };
  for (std::size_t at = 0;;) {
    while (at < rest.size() && is_space(rest[at])) ++at;
    if (at == rest.size()) break;
    if (limit >= 0 && static_cast<std::ptrdiff_t>(pieces.size()) == limit) {
      std::size_t end = rest.size();
      while (end > at && is_space(rest[end - 1])) --end;
      add(rest.substr(at, end - at));
      break;
    }
    std::size_t end = at;
    while (end < rest.size() && !is_space(rest[end])) ++end;
    add(rest.substr(at, end - at));
    at = end;
  }
  if (backwards) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<std::string> split(std::string_view text, std::string_view separator, std::ptrdiff_t limit,
                               Side from) {
  std::vector<std::string> pieces;
  const auto full = [&] { return limit >= 0 && static_cast<std::ptrdiff_t>(pieces.size()) == limit; };
  while (!full()) {
    const std::size_t at = from == Side::right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    if (from == Side::right) {
      pieces.emplace_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    } else {
      pieces.emplace_back(text.substr(0, at));
      text.remove_prefix(at + separator.size());
    }
  }
  pieces.emplace_back(text);
  if (from == Side::right) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<std::string> split_lines(std::string_view text, LineEnds ends) {
  const std::u32string all = wide(text);
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < all.size();) {
    std::size_t end = begin;
    while (end < all.size() && !is_line_end(all[end])) ++end;
    std::size_t next = end < all.size() ? end + 1 : end;
    if (next < all.size() && all[end] == U'\r' && all[next] == U'\n') ++next;
    const std::size_t last = ends == LineEnds::keep ? next : end;
    lines.push_back(narrow(std::u32string_view(all).substr(begin, last - begin)));
    begin = next;
  }
  return lines;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, std::ptrdiff_t limit) {
  std::string out;
  if (from.empty()) {  // before every character and at the end
    const std::u32string all = wide(text);
    for (std::size_t i = 0; i <= all.size(); ++i) {
      if (limit < 0 || static_cast<std::ptrdiff_t>(i) < limit) out += to;
      if (i < all.size()) append(out, all[i]);
    }
    return out;
  }
  for (std::ptrdiff_t done = 0; limit < 0 || done < limit; ++done) {
    const std::size_t at = text.find(from);
    if (at == std::string_view::npos) break;
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
  }
  out += text;
  return out;
}

std::string repr_escape(char32_t c) {
  constexpr const char* kHex = "0123456789abcdef";
  const int digits = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
  std::string out = digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out += kHex[c >> shift & 15];
  return out;
}

std::string repr(std::string_view text) {
  const bool single = text.find('\'') != std::string_view::npos;
  const char quote = single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char32_t c : wide(text)) {
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      append(out, c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append(out, c);
    } else {
      out += repr_escape(c);
    }
  }
  return out + quote;
}

std::string repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 64> text;
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), std::abs(value), std::chars_format::scientific);
  std::string_view shown(text.data(), static_cast<std::size_t>(end.ptr - text.data()));
  const std::size_t e = shown.find('e');
  int exponent = 0;
  std::from_chars(shown.data() + e + (shown[e + 1] == '+' ? 2 : 1), shown.data() + shown.size(), exponent);
  std::string digits(1, shown[0]);
  if (e > 2) digits += shown.substr(2, e - 2);
  std::string out = std::signbit(value) ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (digits.size() > 1) out.append(1, '.').append(digits, 1);
    const std::string size = std::to_string(std::abs(exponent));
    return out + (exponent < 0 ? "e-" : "e+") + (size.size() < 2 ? "0" : "") + size;
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() < whole) digits.resize(whole, '0');
  const std::string fraction = digits.substr(whole);
  return out + digits.substr(0, whole) + "." + (fraction.empty() ? "0" : fraction);
}

}  // namespace plait::python
