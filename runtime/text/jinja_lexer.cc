#include "runtime/text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "runtime/base/error.h"
#include "runtime/text/python_text.h"
#include "runtime/text/utf8.h"

namespace plait::jinja {
namespace {

constexpr std::array<std::string_view, 25> kSymbols = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "/",
                                                       "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                       ">",  "<",  "=",  ".",  ":",  "|",  ","};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// One line end for all three kinds, and no line end at the end.
std::string with_plain_line_ends(std::string_view source) {
  std::string out;
  for (std::size_t i = 0; i < source.size(); ++i) {
    const bool pair = source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n';
    if (!pair) out += source[i] == '\r' ? '\n' : source[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text();
    add(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool starts(std::string_view text) const { return rest().starts_with(text); }

  [[noreturn]] void refuse(const std::string& why) const { fail("line ", line_, ": ", why); }

  void add(Token::Kind kind, std::string text, Value value = {}) {
    tokens_.push_back({kind, line_, std::move(text), std::move(value)});
  }

  void skip(std::size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
    line_starts_ = at_ > 0 && source_[at_ - 1] == '\n';
  }

  // Bytes of white space that begin at `at`.
  std::size_t space(std::size_t at) const {
    std::size_t end = at;
    while (end < source_.size()) {
      const std::string_view here = std::string_view(source_).substr(end, 4);
      const std::size_t bytes = first_character(here).bytes;
      if (!python::is_space(python::wide(here.substr(0, bytes))[0])) break;
      end += bytes;
    }
    return end - at;
  }

  void skip_space() { skip(space(at_)); }

  // The next tag, or the end of the template.
  std::size_t next_tag() const {
    for (std::size_t at = source_.find('{', at_); at != std::string::npos; at = source_.find('{', at + 1))
      if (at + 1 < source_.size() && std::string_view("{%#").find(source_[at + 1]) != std::string_view::npos)
        return at;
    return source_.size();
  }

  // What is shown of the text before a tag with this sign. A statement or comment that stands alone on its
  // line takes the white space before it away.
  std::string_view trimmed(std::string_view text, char sign, bool output) const {
    if (sign == '-') return python::strip(text, python::Side::right);
    if (sign == '+' || output) return text;
    const std::size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
    const bool whole_line = line > 0 || line_starts_;
    const bool blank = python::strip(text.substr(line), python::Side::both).empty();
    return whole_line && blank ? text.substr(0, line) : text;
  }

  void text() {
    const std::size_t tag = next_tag();
    const std::string_view before = std::string_view(source_).substr(at_, tag - at_);
    if (tag == source_.size()) {
      add_data(before);
      return skip(before.size());
    }
    const char kind = source_[tag + 1];
    const char after = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const char sign = after == '-' || after == '+' ? after : '\0';
    add_data(trimmed(before, sign, kind == '{'));
    skip(before.size());
    if (kind == '%' && raw()) return;
    skip(sign ? 3 : 2);
    if (kind == '#') return comment();
    add(kind == '{' ? Token::Kind::output_begin : Token::Kind::statement_begin, "");
    if (kind == '{')
      inside("}}", Token::Kind::output_end);
    else
      inside("%}", Token::Kind::statement_end);
  }

  void add_data(std::string_view text) {
    if (!text.empty()) add(Token::Kind::data, std::string(text));
  }

  // After the closing mark: "-" takes all white space, otherwise a statement takes one line end.
  bool close(std::string_view mark) {
    const bool statement = mark != "}}";
    if (starts(cat("-", mark))) {
      skip(1 + mark.size());
      skip_space();
      return true;
    }
    const bool kept = statement && starts(cat("+", mark));
    if (!kept && !starts(mark)) return false;
    skip(mark.size() + (kept ? 1 : 0));
    if (statement && !kept && starts("\n")) skip(1);
    return true;
  }

  void comment() {
    const int begin = line_;
    while (at_ < source_.size()) {
      if (close("#}")) return;
      skip(1);
    }
    fail("line ", begin, ": the comment that begins here has no end");
  }

  // Length of a sign and `word` after the `{%` at `at`, up to the closing mark; 0 if it is another word.
  std::size_t tag_of_word(std::size_t at, std::string_view word) const {
    std::size_t end = at + 2;
    if (end < source_.size() && (source_[end] == '-' || source_[end] == '+')) ++end;
    end += space(end);
    if (source_.compare(std::min(end, source_.size()), word.size(), word) != 0) return 0;
    end += word.size();
    return end + space(end) - at;
  }

  // A raw block, from its beginning to its end; false if none begins here.
  bool raw() {
    const std::size_t opening = tag_of_word(at_, "raw");
    const std::string_view mark = std::string_view(source_).substr(std::min(at_ + opening, source_.size()));
    if (opening == 0 || (!mark.starts_with("%}") && !mark.starts_with("-%}"))) return false;
    skip(opening);
    if (starts("-")) {
      skip(3);
      skip_space();
    } else {
      skip(2);  // the line end after {% raw %} stays
    }
    const int begin = line_;
    for (std::size_t at = source_.find("{%", at_); at != std::string::npos; at = source_.find("{%", at + 1)) {
      const std::size_t length = tag_of_word(at, "endraw");
      const std::string_view end = std::string_view(source_).substr(std::min(at + length, source_.size()));
      if (length == 0 || !(end.starts_with("%}") || end.starts_with("-%}") || end.starts_with("+%}")))
        continue;
      const std::string_view body = std::string_view(source_).substr(at_, at - at_);
      const char sign = source_[at + 2] == '-' || source_[at + 2] == '+' ? source_[at + 2] : '\0';
      add_data(trimmed(body, sign, false));
      skip(body.size() + length);
      close("%}");
      return true;
    }
    fail("line ", begin, ": the raw block that begins here has no end");
  }

  void inside(std::string_view mark, Token::Kind end) {
    const int begin = line_;
    open_.clear();
    while (at_ < source_.size()) {
      if (open_.empty() && close(mark)) {
        add(end, "");
        return;
      }
      token();
    }
    fail("line ", begin, ": the tag that begins here has no end");
  }

  void token() {
    if (const std::size_t bytes = space(at_); bytes > 0) return skip(bytes);
    if (is_digit(source_[at_])) return number();
    if (source_[at_] == '\'' || source_[at_] == '"') return literal();
    if (const std::size_t length = word_length(); length > 0) {
      add(Token::Kind::name, std::string(rest().substr(0, length)));
      return skip(length);
    }
    for (const std::string_view symbol : kSymbols)
      if (starts(symbol)) {
        balance(symbol[0]);
        add(Token::Kind::symbol, std::string(symbol));
        return skip(symbol.size());
      }
    refuse("there is no use for the character '" +
           std::string(rest().substr(0, first_character(rest()).bytes)) + "' in a tag");
  }

  std::size_t word_length() const {
    std::size_t length = 0;
    while (at_ + length < source_.size()) {
      const std::string_view here = rest().substr(length);
      const std::size_t bytes = first_character(here).bytes;
      if (!python::is_word(python::wide(here.substr(0, bytes))[0])) break;
      length += bytes;
    }
    return length;
  }

  void balance(char symbol) {
    const std::size_t opens = std::string_view("([{").find(symbol);
    if (opens != std::string_view::npos) open_ += ")]}"[opens];
    if (std::string_view(")]}").find(symbol) == std::string_view::npos) return;
    if (open_.empty() || open_.back() != symbol)
      refuse(std::string("there is a '") + symbol + "' that closes nothing");
    open_.pop_back();
  }

  // Digits with single underscores between them, from `at`.
  std::size_t digits(std::size_t at, std::string_view allowed) const {
    const auto digit = [&](std::size_t i) {
      return i < source_.size() && allowed.find(source_[i]) != std::string_view::npos;
    };
    std::size_t end = at;
    while (digit(end) || (end > at && end < source_.size() && source_[end] == '_' && digit(end + 1))) ++end;
    return end;
  }

  void number() {
    constexpr std::string_view kDecimal = "0123456789";
    const std::size_t whole = digits(at_, kDecimal);
    std::size_t end = whole;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1]))
      end = digits(end + 1, kDecimal);
    end = exponent(end);
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    if (end > whole && !after_dot) return real(end);
    for (const auto& [prefix, base, allowed] :
         {std::tuple{'x', 16, "0123456789abcdefABCDEF"}, {'o', 8, "01234567"}, {'b', 2, "01"}})
      if (source_[at_] == '0' && at_ + 1 < source_.size() && (source_[at_ + 1] | 0x20) == prefix) {
        const std::size_t first = at_ + 2 + (source_.substr(at_ + 2, 1) == "_" ? 1 : 0);
        const std::size_t last = digits(first, allowed);
        if (last > first) return integer(last, first, base);
      }
    // A zero that begins a number is a number of its own: 01 is 0 and 1.
    integer(source_[at_] == '0' ? digits(at_, "0") : whole, at_, 10);
  }

  // Where an exponent ends that begins at `at`; `at` if none does.
  std::size_t exponent(std::size_t at) const {
    if (at >= source_.size() || (source_[at] | 0x20) != 'e') return at;
    std::size_t first = at + 1;
    if (first < source_.size() && (source_[first] == '+' || source_[first] == '-')) ++first;
    const std::size_t end = digits(first, "0123456789");
    return end > first ? end : at;
  }

  std::string without_underscores(std::size_t first, std::size_t last) const {
    std::string text = source_.substr(first, last - first);
    std::erase(text, '_');
    return text;
  }

  void real(std::size_t end) {
    add(Token::Kind::number, "", Value(std::strtod(without_underscores(at_, end).c_str(), nullptr)));
    skip(end - at_);
  }

  void integer(std::size_t end, std::size_t first, int base) {
    const std::string text = without_underscores(first, end);
    std::int64_t value = 0;
    const auto [last, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc() || last != text.data() + text.size())
      refuse("the number " + text + " does not fit 64 bits");
    add(Token::Kind::number, text, Value(value));
    skip(end - at_);
  }

  void literal() {
    const char quote = source_[at_];
    std::size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) refuse("the text that begins here has no end");
    add(Token::Kind::text, "", Value(unescaped(std::string_view(source_).substr(at_ + 1, end - at_ - 1))));
    skip(end + 1 - at_);
  }

  std::string unescaped(std::string_view text) const {
    const std::u32string in = python::wide(text);
    std::string out;
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (in[i] != U'\\' || i + 1 == in.size())
        python::append(out, in[i]);
      else
        escape(out, in, ++i);
    }
    return out;
  }

  // Appends what the escape means whose letter is in[i]; i is left on its last character.
  void escape(std::string& out, const std::u32string& in, std::size_t& i) const {
    constexpr std::u32string_view kLetters = U"\\'\"abfnrtv", kMeanings = U"\\'\"\a\b\f\n\r\t\v";
    const char32_t c = in[i];
    if (c == U'\n') return;
    if (const std::size_t at = kLetters.find(c); at != std::u32string_view::npos)
      return python::append(out, kMeanings[at]);
    if (c >= U'0' && c <= U'7') return octal(out, in, i);
    if (c == U'x' || c == U'u' || c == U'U')
      return hexadecimal(out, in, i, c == U'x' ? 2 : c == U'u' ? 4 : 8);
    if (c == U'N') refuse("the escape \\N in a text is not interpreted");
    out += '\\';
    if (c < 0x80)
      python::append(out, c);
    else  // Jinja spells such a character as an escape before it looks at escapes, and the backslash takes it
      out += python::repr_escape(c).substr(1);
  }

  static void octal(std::string& out, const std::u32string& in, std::size_t& i) {
    char32_t value = 0;
    const std::size_t first = i;
    while (i < in.size() && i < first + 3 && in[i] >= U'0' && in[i] <= U'7')
      value = value * 8 + (in[i++] - U'0');
    --i;
    python::append(out, value);
  }

  void hexadecimal(std::string& out, const std::u32string& in, std::size_t& i, std::size_t count) const {
    const std::string digits = python::narrow(std::u32string_view(in).substr(i + 1, count));
    std::uint32_t value = 0;
    const auto [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    const bool whole = digits.size() == count && error == std::errc() && last == digits.data() + count;
    if (!whole || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
      refuse("the escape \\" + python::narrow(std::u32string_view(in).substr(i, 1)) + digits +
             " in a text names no character");
    python::append(out, value);
    i += count;
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
  std::string open_;  // closing brackets that are due
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> split_template(std::string_view source) {
  return Lexer(with_plain_line_ends(source)).run();
}

}  // namespace plait::jinja
