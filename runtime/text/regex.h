// Regular expressions as tokenizer.json files mean them: Oniguruma's, run by PCRE2.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace plait {

// Bytes [begin, end) of a text.
struct Range {
  std::size_t begin, end;
  bool operator==(const Range&) const = default;
};

// Immutable; shared by threads.
class Regex {
 public:
  // Throws Error naming `where` for what is no expression, or means something else to PCRE2 and is not
  // translated.
  Regex(std::string_view pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // All matches from left to right, in well-formed UTF-8; an empty match that touches the one before it is
  // none. Throws Error when PCRE2's limits on steps or memory are reached.
  std::vector<Range> matches(std::string_view text) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The same language in PCRE2's syntax (UTF, UCP, MULTILINE). Where both disagree about a construct it is
// spelled out (\s, \w, \b, \h, \uHHHH, {,n}) or refused with a sentence.
std::string to_pcre2(std::string_view pattern, const std::string& where);

}  // namespace plait
