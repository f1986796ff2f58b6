#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/text/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <new>

#include "runtime/base/error.h"
#include "runtime/text/unicode.h"

namespace plait {
namespace {

constexpr std::size_t kMaxPattern = 65536;
constexpr std::uint32_t kMaxSteps = 100'000'000, kMaxHeap = 256 * 1024;  // of one match; heap in KiB
constexpr std::size_t kJitStack = std::size_t{8} << 20;

// White_Space; PCRE2's own \s has U+180E too.
constexpr const char* kSpace =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr const char* kNotSpace =
    R"(\x00-\x08\x0e-\x1f\x21-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// PCRE2's own \w has no marks.
constexpr const char* kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside a class, and for \b, Oniguruma asks another table below U+0100: it has superscripts and fractions.
constexpr const char* kWordAlone = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}])";

// Whether a property is a script. By its bare name PCRE2 means the characters used with that script too,
// Oniguruma its own alone.
bool is_script(std::string_view name) {
  const std::string expression = cat("\\p{sc:", name, "}");
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                   PCRE2_UTF, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

// Walks a pattern and rewrites it construct by construct.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  void step() {
    const char c = in_[at_];
    if (c == '\\') return escape();
    if (c == '[' && class_depth_ == 0) return open_class();
    if (class_depth_ > 0) return in_class();
    if (c == '(') return open_group();
    if (c == '{') return interval();
    out_ += c;
    ++at_;
  }

  [[noreturn]] void refuse(const std::string& what) const {
    fail(where_, ": the expression '", in_.substr(0, 200), "' uses ", what,
         ", which this plait does not read");
  }

  void open_class() {
    class_depth_ = 1;
    out_ += in_[at_++];
    if (at_ < in_.size() && in_[at_] == '^') out_ += in_[at_++];
    if (at_ < in_.size() && in_[at_] == ']') refuse("a ']' at the beginning of a class");
  }

  void in_class() {
    const char c = in_[at_];
    if (c == '[') refuse("a class inside a class");
    if (c == '&' && in_.substr(at_, 2) == "&&") refuse("an intersection of classes");
    if (c == ']') class_depth_ = 0;
    out_ += c;
    ++at_;
  }

  // (?imx) mean other things to PCRE2, except i and x.
  void open_group() {
    out_ += in_[at_++];
    if (in_.substr(at_, 1) == "*") refuse("a verb");
    if (in_.substr(at_, 1) != "?") return;
    for (std::size_t i = at_ + 1; i < in_.size(); ++i) {
      const char c = in_[i];
      if (c == 'i' || c == 'x' || c == '-') continue;
      if (c >= 'a' && c <= 'z') refuse(cat("the option or group (?", c, ")"));
      if ((c >= 'A' && c <= 'Z') || c == '(' || c == '&' || c == '+' || (c >= '0' && c <= '9') || c == '|' ||
          c == '~' || c == '@')
        refuse(cat("the group (?", c, ")"));
      break;
    }
  }

  // {2}, {2,}, {2,3} or {,3}; anything else is text.
  void interval() {
    const std::size_t close = in_.find('}', at_);
    const std::string_view inside =
        close == in_.npos ? std::string_view() : in_.substr(at_ + 1, close - at_ - 1);
    const std::size_t comma = std::min(inside.find(','), inside.size());
    const auto digits = [](std::string_view text) {
      return text.find_first_not_of("0123456789") == text.npos;
    };
    const std::string_view low = inside.substr(0, comma),
                           high = inside.substr(std::min(comma + 1, inside.size()));
    if (low.size() + high.size() == 0 || !digits(low) || !digits(high)) {
      out_ += "\\{";
      ++at_;
      return;
    }
    if (in_.substr(close + 1, 1) == "+") refuse("'}+'");
    out_ += inside[0] == ',' ? cat("{0", inside, "}") : cat("{", inside, "}");
    at_ = close + 1;
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("a lone '\\' at its end");
    const char c = in_[at_ + 1];
    const std::size_t begin = at_;
    at_ += 2;
    const bool inside = class_depth_ > 0;
    const auto listed = [&](const char* members) { out_ += inside ? members : cat("[", members, "]"); };
    switch (c) {
      case 's':
        return listed(kSpace);
      case 'S':
        return listed(kNotSpace);
      case 'w':
        out_ += inside ? kWord : kWordAlone;
        return;
      case 'h':
        return listed("0-9a-fA-F");
      case 'W':
        if (inside) refuse("\\W in a class");
        out_ += cat("[^", kWordAlone + 1);
        return;
      case 'b':
      case 'B':
        return boundary(c == 'b');
      case 'u':
        return code_unit();
      case 'x':
        return hexadecimal();
      case 'p':
      case 'P':
        return property(c);
      case 'd':
      case 'D':
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'A':
      case 'z':
      case 'Z':
        out_ += in_.substr(begin, 2);
        return;
      case 'v':
        out_ += "\\x0b";
        return;
      default:
        break;
    }
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || std::isalnum(byte)) refuse(cat("'\\", c, "'"));
    out_ += in_.substr(begin, 2);
  }

  void boundary(bool wanted) {
    if (class_depth_ > 0) refuse("\\b in a class");
    const std::string w = kWordAlone;
    out_ += wanted ? cat("(?:(?<=", w, ")(?!", w, ")|(?<!", w, ")(?=", w, "))")
                   : cat("(?:(?<=", w, ")(?=", w, ")|(?<!", w, ")(?!", w, "))");
  }

  static bool hex(std::string_view digits) {
    return !digits.empty() && digits.find_first_not_of("0123456789abcdefABCDEF") == digits.npos;
  }

  void code_unit() {
    const std::string_view digits = in_.substr(at_, 4);
    if (digits.size() != 4 || !hex(digits)) refuse("'\\u' without four digits");
    out_ += cat("\\x{", digits, "}");
    at_ += 4;
  }

  void hexadecimal() {
    if (in_.substr(at_, 1) == "{") {
      const std::size_t close = in_.find('}', at_);
      if (close == in_.npos || !hex(in_.substr(at_ + 1, close - at_ - 1))) refuse("'\\x{' without digits");
      out_ += cat("\\x", in_.substr(at_, close + 1 - at_));
      at_ = close + 1;
      return;
    }
    const std::string_view digits = in_.substr(at_, 2);
    if (digits.size() != 2 || !hex(digits) || digits[0] > '7') refuse("'\\x' of a byte that is no character");
    out_ += cat("\\x", digits);
    at_ += 2;
  }

  void property(char c) {
    const std::size_t close = in_.substr(at_, 1) == "{" ? in_.find('}', at_) : in_.npos;
    if (close == in_.npos) refuse("'\\p' without a name in braces");
    std::string_view name = in_.substr(at_ + 1, close - at_ - 1);
    at_ = close + 1;
    const bool inverted = name.starts_with('^');
    if (inverted) name.remove_prefix(1);
    const bool plain = std::all_of(name.begin(), name.end(), [](char b) {
      return std::isalnum(static_cast<unsigned char>(b)) || b == '_' || b == '-' || b == ' ';
    });
    // Xan and the like are PCRE2's own.
    if (!plain || (name.size() == 3 && std::toupper(static_cast<unsigned char>(name[0])) == 'X'))
      refuse(cat("the property '", name, "'"));
    if (inverted) c = c == 'p' ? 'P' : 'p';
    out_ += cat("\\", c, is_script(name) ? "{sc:" : "{", name, "}");
  }

  std::string_view in_;
  const std::string& where_;
  std::string out_;
  std::size_t at_ = 0;
  int class_depth_ = 0;
};

std::string message_of(int code) {
  PCRE2_UCHAR text[256] = "";
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Code = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>>;

// What a match needs besides the expression; one per thread, because making it costs more than a short match.
struct Workspace {
  MatchData data{pcre2_match_data_create(1, nullptr)};
  MatchContext context{pcre2_match_context_create(nullptr)};
  JitStack stack{pcre2_jit_stack_create(32768, kJitStack, nullptr)};

  Workspace() {
    if (!data || !context) throw std::bad_alloc();
    pcre2_set_match_limit(context.get(), kMaxSteps);
    pcre2_set_heap_limit(context.get(), kMaxHeap);
    if (stack) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

}  // namespace

std::string to_pcre2(std::string_view pattern, const std::string& where) {
  if (pattern.size() > kMaxPattern)
    fail(where, ": an expression of ", pattern.size(), " bytes; at most ", kMaxPattern, " are read");
  return Translator(pattern, where).run();
}

struct Regex::Impl {
  Code code;
  std::string where;
};

Regex::Regex(std::string_view pattern, const std::string& where) : impl_(std::make_unique<Impl>()) {
  const std::string translated = to_pcre2(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl_->where = where;
  impl_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                                  &offset, nullptr));
  if (!impl_->code)
    fail(where, ": the expression '", pattern.substr(0, 200),
         "' is not one this plait reads: ", message_of(error));
  pcre2_jit_compile(impl_->code.get(), PCRE2_JIT_COMPLETE);  // where there is none, the interpreter runs
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::vector<Range> Regex::matches(std::string_view text) const {
  thread_local const Workspace workspace;
  pcre2_match_data* data = workspace.data.get();
  std::vector<Range> found;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // The text is well-formed: PCRE2's check of the whole text at every match would be quadratic.
  std::uint32_t options = PCRE2_NO_UTF_CHECK;
  for (std::size_t at = 0; at <= text.size();) {
    int rc = pcre2_match(impl_->code.get(), subject, text.size(), at, options, data, workspace.context.get());
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its frames on the heap
      options |= PCRE2_NO_JIT;
      continue;
    }
    if (rc < 0) fail(impl_->where, ": its expression gives up on this text: ", message_of(rc));
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
    const Range range{ends[0], ends[1]};
    if (range.begin >= range.end && !found.empty() && found.back().end == range.end) {
      if (at >= text.size()) break;
      unicode::next(text, at);
      continue;
    }
    if (range.begin > range.end) fail(impl_->where, ": its expression matches backwards");
    found.push_back(range);
    at = range.end;
  }
  return found;
}

}  // namespace plait
