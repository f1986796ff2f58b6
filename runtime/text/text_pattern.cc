#include "runtime/text/text_pattern.h"

#include "runtime/base/error.h"
#include "runtime/text/growth.h"
#include "runtime/text/json_object.h"

namespace plait {

TextPattern::TextPattern(const nlohmann::json& json, const std::string& where) {
  JsonObject object(json, where + ".pattern");
  if (object.has("Regex"))
    regex_.emplace(object.text("Regex"), where);
  else
    literal_ = object.text("String");
  object.finish();
  if (!regex_ && literal_.empty()) fail(where, ": the pattern is an empty text");
}

std::vector<Range> TextPattern::matches(std::string_view text) const {
  if (regex_) return regex_->matches(text);
  std::vector<Range> found;
  for (std::size_t at = 0; (at = text.find(literal_, at)) != text.npos; at += literal_.size())
    found.push_back({at, at + literal_.size()});
  return found;
}

std::string TextPattern::replace(std::string_view text, std::string_view content, std::size_t limit,
                                 bool* at_start) const {
  std::string out;
  out.reserve(text.size());
  std::size_t done = 0;
  for (const Range& match : matches(text)) {
    if (at_start && match.begin == 0) *at_start = true;
    out.append(text.substr(done, match.begin - done)).append(content);
    check_growth(out.size(), limit);
    done = match.end;
  }
  return out.append(text.substr(done));
}

}  // namespace plait
