#include "runtime/text/normalizer.h"

#include <functional>
#include <optional>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/text/byte_alphabet.h"
#include "runtime/text/json_object.h"
#include "runtime/text/text_pattern.h"
#include "runtime/text/unicode.h"

namespace plait {
namespace {

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<const Normalizer>> parts) : parts_(std::move(parts)) {}
  void apply(Normalized& text) const override {
    for (const auto& part : parts_) {
      part->apply(text);
      check_growth(text.text.size(), text.limit);
    }
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> parts_;
};

// A function of the text alone.
class Function final : public Normalizer {
 public:
  explicit Function(std::function<void(Normalized&)> f) : f_(std::move(f)) {}
  void apply(Normalized& text) const override { f_(text); }

 private:
  std::function<void(Normalized&)> f_;
};

std::unique_ptr<const Normalizer> function(std::function<void(Normalized&)> f) {
  return std::make_unique<Function>(std::move(f));
}

std::unique_ptr<const Normalizer> form(unicode::Form form) {
  return function([form](Normalized& n) { n.text = unicode::normalise(n.text, form); });
}

// Keeps the characters `keep` says yes to, as `change` turns them.
template <class Keep, class Change>
void filter(Normalized& n, Keep keep, Change change) {
  std::string out;
  out.reserve(n.text.size());
  for (std::size_t at = 0; at < n.text.size();) {
    const std::size_t begin = at;
    const char32_t c = unicode::next(n.text, at);
    if (keep(c))
      change(out, c);
    else if (begin == 0)
      n.whole_start = false;
  }
  n.text = std::move(out);
}

void strip_left(Normalized& n) {
  std::size_t begin = 0;
  for (std::size_t at = 0; at < n.text.size() && unicode::is_white_space(unicode::next(n.text, at));)
    begin = at;
  if (begin > 0) n.whole_start = false;
  n.text.erase(0, begin);
}

void strip_right(Normalized& n) {
  std::size_t end = n.text.size();
  while (end > 0) {
    const std::size_t begin = unicode::before(n.text, end);
    std::size_t at = begin;
    if (!unicode::is_white_space(unicode::next(n.text, at))) break;
    end = begin;
  }
  n.text.resize(end);
}

std::unique_ptr<const Normalizer> strip(JsonObject& object) {
  const bool left = object.flag("strip_left"), right = object.flag("strip_right");
  return function([left, right](Normalized& n) {
    if (left) strip_left(n);
    if (right) strip_right(n);
  });
}

std::unique_ptr<const Normalizer> replace(JsonObject& object) {
  auto pattern = std::make_shared<TextPattern>(object.at("pattern"), object.where());
  return function([pattern, content = object.text("content")](Normalized& n) {
    bool at_start = false;
    n.text = pattern->replace(n.text, content, n.limit, &at_start);
    if (at_start && content.empty()) n.whole_start = false;
  });
}

bool is_chinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void clean(Normalized& n) {
  const auto keep = [](char32_t c) {
    const bool blank = c == '\t' || c == '\n' || c == '\r';
    return c != 0 && c != 0xFFFD && (blank || !unicode::is_other(c));
  };
  filter(n, keep,
         [](std::string& out, char32_t c) { unicode::append(out, unicode::is_white_space(c) ? ' ' : c); });
}

void space_chinese(Normalized& n) {
  filter(
      n, [](char32_t) { return true; },
      [](std::string& out, char32_t c) {
        if (is_chinese(c)) out += ' ';
        unicode::append(out, c);
        if (is_chinese(c)) out += ' ';
      });
}

std::unique_ptr<const Normalizer> bert(JsonObject& object) {
  const bool cleans = object.flag("clean_text"), chinese = object.flag("handle_chinese_chars");
  const bool lowers = object.flag("lowercase");
  const bool accents = object.flag_or("strip_accents", lowers);
  return function([=](Normalized& n) {
    if (cleans) clean(n);
    if (chinese) space_chinese(n);
    if (accents) {
      n.text = unicode::normalise(n.text, unicode::Form::nfd);
      filter(
          n, [](char32_t c) { return !unicode::is_nonspacing_mark(c); }, unicode::append);
    }
    if (lowers) n.text = unicode::lower(n.text);
  });
}

std::unique_ptr<const Normalizer> sequence(JsonObject& object) {
  std::vector<std::unique_ptr<const Normalizer>> parts;
  for (const auto& part : object.array("normalizers"))
    parts.push_back(make_normalizer(part, cat(object.where(), ".normalizers[", parts.size(), "]")));
  return std::make_unique<Sequence>(std::move(parts));
}

std::unique_ptr<const Normalizer> by_type(const std::string& type, JsonObject& object) {
  if (type == "Sequence") return sequence(object);
  if (type == "NFC") return form(unicode::Form::nfc);
  if (type == "NFD") return form(unicode::Form::nfd);
  if (type == "NFKC") return form(unicode::Form::nfkc);
  if (type == "NFKD") return form(unicode::Form::nfkd);
  if (type == "Lowercase") return function([](Normalized& n) { n.text = unicode::lower(n.text); });
  if (type == "StripAccents")
    return function([](Normalized& n) {
      filter(
          n, [](char32_t c) { return !unicode::is_mark(c); }, unicode::append);
    });
  if (type == "Strip") return strip(object);
  if (type == "Replace") return replace(object);
  if (type == "Prepend")
    return function([prefix = object.text("prepend")](Normalized& n) {
      if (!n.text.empty()) n.text.insert(0, prefix);
    });
  if (type == "ByteLevel") return function([](Normalized& n) { n.text = to_byte_alphabet(n.text); });
  if (type == "BertNormalizer") return bert(object);
  fail(object.where(), ": this plait does not know the normalizer '", type.substr(0, 64), "'");
}

}  // namespace

std::unique_ptr<const Normalizer> make_normalizer(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) return function([](Normalized&) {});
  JsonObject object(json, where);
  const std::string type = object.type();
  auto made = by_type(type, object);
  object.finish();
  return made;
}

}  // namespace plait
