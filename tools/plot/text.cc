#include "tools/plot/text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "runtime/base/error.h"
#include "runtime/text/utf8.h"

namespace plait::plot {
namespace {

constexpr const char* kMinus = "\u2212";
constexpr double kEm = 0.6;  // mean advance of a wide sans-serif face (DejaVu Sans), in font sizes

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

const char* html_of(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return static_cast<unsigned char>(c) < ' ' && c != '\n' && c != '\t' ? "\uFFFD" : nullptr;
  }
}

// What LaTeX reads as a command, and the typography this report writes.
constexpr std::pair<std::string_view, std::string_view> kLatex[] = {{"\\", "\\textbackslash{}"},
                                                                    {"~", "\\textasciitilde{}"},
                                                                    {"^", "\\textasciicircum{}"},
                                                                    {"<", "\\textless{}"},
                                                                    {">", "\\textgreater{}"},
                                                                    {"\"", "''"},
                                                                    {"&", "\\&"},
                                                                    {"%", "\\%"},
                                                                    {"$", "\\$"},
                                                                    {"#", "\\#"},
                                                                    {"_", "\\_"},
                                                                    {"{", "\\{"},
                                                                    {"}", "\\}"},
                                                                    {"\u2212", "$-$"},
                                                                    {"\u2013", "--"},
                                                                    {"\u2026", "\\ldots{}"},
                                                                    {"\u201c", "``"},
                                                                    {"\u201d", "''"},
                                                                    {"\u00d7", "$\\times$"}};

}  // namespace

std::string escape_html(std::string_view text) {
  std::string result;
  for (const char c : to_valid_utf8(text)) {
    if (const char* other = html_of(c))
      result += other;
    else
      result += c;
  }
  return result;
}

std::string escape_latex(std::string_view text) {
  const std::string valid = to_valid_utf8(text);
  std::string result;
  for (std::string_view rest = valid; !rest.empty();) {
    const auto found = std::find_if(std::begin(kLatex), std::end(kLatex),
                                    [&](auto& pair) { return rest.starts_with(pair.first); });
    const bool control = static_cast<unsigned char>(rest[0]) < ' ';
    result += found != std::end(kLatex) ? found->second : control ? std::string_view(" ") : rest.substr(0, 1);
    rest.remove_prefix(found != std::end(kLatex) ? found->first.size() : 1);
  }
  return result;
}

std::string decimal(double value, int decimals) {
  char digits[64];
  std::snprintf(digits, sizeof digits, "%.*f", decimals, std::abs(value));
  const bool zero = std::string_view(digits).find_first_not_of("0.") == std::string_view::npos;
  return (value < 0 && !zero ? kMinus : "") + std::string(digits);
}

std::string signed_decimal(double value, int decimals) {
  const std::string text = decimal(value, decimals);
  const bool zero = text.find_first_not_of("0.") == std::string::npos;
  return (value > 0 && !zero ? "+" : "") + text;
}

int decimals_for(double scale) {
  if (!std::isfinite(scale) || scale == 0) return 2;
  return std::clamp(1 - static_cast<int>(std::floor(std::log10(std::abs(scale)))), 0, 6);
}

std::string grouped(long long value) {
  const std::string digits = std::to_string(value);
  const std::size_t sign = value < 0;
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > sign && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string counted(long long count, const std::string& noun) {
  return cat(grouped(count), " ", noun, count == 1 ? "" : "s");
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 == words.size() ? " and " : ", ") + words[i];
  return text;
}

std::string probability(double p) {
  if (!std::isfinite(p)) return "no p value";
  if (p < 0.001) return "p < 0.001";
  return "p = " + decimal(p, p < 0.1 ? 3 : 2);
}

std::string spaced(std::string name) {
  std::string text;
  for (const char c : name) text += c == '_' ? " " : c == '+' ? " + " : std::string(1, c);
  return text;
}

std::string capitalised(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

double text_width(std::string_view text, double font_size) {
  const auto letters = std::count_if(text.begin(), text.end(), [](char c) { return !continues(c); });
  return static_cast<double>(letters) * font_size * kEm;
}

std::string fitted(std::string_view text, double width, double font_size) {
  if (text_width(text, font_size) <= width) return std::string(text);
  auto letters = static_cast<long long>(width / (font_size * kEm)) - 1;
  std::size_t end = 0;
  while (end < text.size() && (letters > 0 || continues(text[end]))) letters -= !continues(text[end++]);
  return std::string(text.substr(0, end)) + "\u2026";
}

}  // namespace plait::plot
