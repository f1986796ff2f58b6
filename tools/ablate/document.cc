#include "tools/ablate/document.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cmath>
#include <sstream>

#include "weights/json_text.h"

namespace plait::ablate {
namespace {

constexpr std::size_t kMaxText = 4 << 20, kMaxSize = 16 << 20;
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kValueSize = 64;  // what a value counts besides its characters

bool digits(std::string_view text, std::string_view allowed = "0123456789") {
  return !text.empty() && text.find_first_not_of(allowed) == std::string_view::npos;
}

std::string_view without_sign(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  return text;
}

bool is_integer(std::string_view text) { return digits(without_sign(text)); }

// [-+]? ( . digits | digits ( . digits? )? ) ( [eE] [-+]? digits )?
bool is_float(std::string_view text) {
  text = without_sign(text);
  if (const auto e = text.find_first_of("eE"); e != std::string_view::npos) {
    if (!digits(without_sign(text.substr(e + 1)))) return false;
    text = text.substr(0, e);
  }
  const auto point = text.find('.');
  if (point == std::string_view::npos) return digits(text);
  const auto whole = text.substr(0, point), part = text.substr(point + 1);
  return (whole.empty() || digits(whole)) && (part.empty() || digits(part)) &&
         !(whole.empty() && part.empty());
}

bool is_not_finite(std::string_view text) {
  text = without_sign(text);
  return text == ".inf" || text == ".Inf" || text == ".INF" || text == ".nan" || text == ".NaN" ||
         text == ".NAN";
}

template <class Number>
bool parse_number(std::string_view text, Number& value, int base = 10) {
  if (text.starts_with('+')) text.remove_prefix(1);
  std::from_chars_result result{};
  if constexpr (std::is_integral_v<Number>)
    result = std::from_chars(text.data(), text.data() + text.size(), value, base);
  else
    result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

// Turns the parser's events into a value and its places.
class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(Document& document) : document_(document) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { scalar(mark, anchor, Json()); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) refuse(mark, "an alias stands inside what it names");
    count(mark, found->second.size);
    add(mark, found->second.json, found->second.place, found->second.size);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (value.find('\0') != std::string::npos || !is_utf8(value))
      refuse(mark, "a string has a NUL character or is not valid UTF-8");
    if (expects_key()) return key(mark, tag, anchor, value);
    if (tag != "?" && tag != "!" && tag != "") refuse_tag(mark, tag);
    scalar(mark, anchor, tag == "?" ? resolve(mark, value) : Json(value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Json::array());
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Json::object());
  }
  void OnMapEnd() override { close(); }

 private:
  struct Anchored {
    Json json;
    Place place;
    std::size_t size;
  };
  // A list or an object that has begun.
  struct Frame {
    Anchored held;
    YAML::anchor_t anchor;
    YAML::Mark mark;
    std::string key;
    bool has_key = false;
  };

  template <class... Parts>
  [[noreturn]] void refuse(const YAML::Mark& mark, const Parts&... parts) const {
    fail("'", document_.origin, "', line ", mark.line + 1, ": ", parts...);
  }
  [[noreturn]] void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    refuse(mark, "the tag '", printable(tag), "' is not read; write the plain value");
  }

  bool expects_key() const {
    return !frames_.empty() && frames_.back().held.json.is_object() && !frames_.back().has_key;
  }

  void key(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) {
    if (tag != "?" && tag != "!" && tag != "") refuse_tag(mark, tag);
    if (anchor != 0) refuse(mark, "the key '", printable(value), "' has an anchor; anchors belong to values");
    Frame& frame = frames_.back();
    if (frame.held.json.contains(value)) refuse(mark, "the key '", printable(value), "' is given twice");
    count(mark, value.size());
    frame.held.size += value.size();
    frame.key = value;
    frame.has_key = true;
  }

  Json resolve(const YAML::Mark& mark, const std::string& text) const {
    if (text == "~" || text == "null" || text == "Null" || text == "NULL" || text.empty()) return {};
    if (text == "true" || text == "True" || text == "TRUE") return true;
    if (text == "false" || text == "False" || text == "FALSE") return false;
    if (is_not_finite(text)) refuse(mark, "the number ", text, " is not finite");
    std::int64_t whole = 0;
    const bool hexadecimal =
        text.starts_with("0x") && digits(std::string_view(text).substr(2), "0123456789abcdefABCDEF");
    const bool octal = text.starts_with("0o") && digits(std::string_view(text).substr(2), "01234567");
    if (hexadecimal || octal) {
      if (parse_number(std::string_view(text).substr(2), whole, hexadecimal ? 16 : 8)) return whole;
      refuse(mark, "the number ", printable(text), " does not fit in 64 bits");
    }
    if (is_integer(text)) {
      if (parse_number(text, whole)) return whole;
      refuse(mark, "the number ", printable(text), " does not fit in 64 bits");
    }
    double number = 0;
    if (!is_float(text)) return text;
    if (parse_number(text, number) && std::isfinite(number)) return number;
    refuse(mark, "the number ", printable(text), " does not fit in a double");
  }

  void scalar(const YAML::Mark& mark, YAML::anchor_t anchor, Json value) {
    if (expects_key()) refuse(mark, "a key is empty");
    Anchored held{std::move(value), {mark.line + 1, {}, {}}, kValueSize};
    if (held.json.is_string()) held.size += held.json.get_ref<const std::string&>().size();
    count(mark, held.size);
    remember(mark, anchor, held);
    add(mark, std::move(held.json), std::move(held.place), held.size);
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Json empty) {
    if (tag != "?" && tag != "!" && tag != "") refuse_tag(mark, tag);
    if (expects_key()) refuse(mark, "a key is a list or an object; keys are plain words");
    if (frames_.size() >= kMaxDepth) refuse(mark, "values are nested more than ", kMaxDepth, " deep");
    count(mark, kValueSize);
    frames_.push_back({{std::move(empty), {mark.line + 1, {}, {}}, kValueSize}, anchor, mark, {}, false});
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    remember(frame.mark, frame.anchor, frame.held);
    add(frame.mark, std::move(frame.held.json), std::move(frame.held.place), frame.held.size);
  }

  void remember(const YAML::Mark& mark, YAML::anchor_t anchor, const Anchored& held) {
    if (anchor == 0) return;
    count(mark, held.size);
    anchors_.insert_or_assign(anchor, held);
  }

  void add(const YAML::Mark& mark, Json json, Place place, std::size_t size) {
    if (frames_.empty()) {
      document_.json = std::move(json);
      document_.place = std::move(place);
      return;
    }
    if (expects_key()) refuse(mark, "a key is an alias; keys are plain words");
    Frame& frame = frames_.back();
    frame.held.size += size;
    if (frame.held.json.is_array()) {
      frame.held.json.push_back(std::move(json));
      frame.held.place.items.push_back(std::move(place));
    } else {
      frame.held.json[frame.key] = std::move(json);
      frame.held.place.keys[frame.key] = std::move(place);
      frame.has_key = false;
    }
  }

  void count(const YAML::Mark& mark, std::size_t size) {
    size_ += size;
    if (size_ > kMaxSize)
      refuse(mark, "with its aliases the document is larger than ", kMaxSize >> 20, " MiB");
  }

  Document& document_;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, Anchored> anchors_;
  std::size_t size_ = 0;
};

// Counts what comes after the first document.
class Rest final : public YAML::EventHandler {
 public:
  explicit Rest(std::string origin) : origin_(std::move(origin)) {}
  void OnDocumentStart(const YAML::Mark& mark) override {
    fail("'", origin_, "', line ", mark.line + 1, ": a second document begins; a file holds one");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
  }
  void OnMapEnd() override {}

 private:
  std::string origin_;
};

void read_yaml(std::string_view text, Document& document) {
  const std::string& origin = document.origin;
  if (text.size() > kMaxText)
    fail("'", origin, "' has ", text.size(), " bytes, at most ", kMaxText, " are read");
  if (text.find('\0') != std::string_view::npos) fail("'", origin, "' contains a NUL character");
  if (!is_utf8(text)) fail("'", origin, "' is not valid UTF-8");
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Builder builder(document);
    if (!parser.HandleNextDocument(builder)) fail("'", origin, "' is empty");
    Rest rest(origin);
    parser.HandleNextDocument(rest);
  } catch (const YAML::Exception& error) {
    fail("'", origin, "', line ", error.mark.line + 1, ": not valid YAML: ", printable(error.msg));
  }
}

bool is_json(std::string_view text, const std::string& origin) {
  if (origin.ends_with(".json")) return true;
  if (origin.ends_with(".yaml") || origin.ends_with(".yml")) return false;
  const auto first = text.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && (text[first] == '{' || text[first] == '[');
}

}  // namespace

Document read_document(std::string_view text, const std::string& origin) {
  Document document{origin, {}, {}};
  if (is_json(text, origin))
    document.json = parse_json(text, cat("'", origin, "'"));
  else
    read_yaml(text, document);
  return document;
}

Value::Value(const Document& document)
    : document_(&document),
      json_(&document.json),
      place_(&document.place),
      what_("the document"),
      line_(document.place.line) {}

void Value::refuse_text(const std::string& message) const {
  if (line_ > 0) fail("'", document_->origin, "', line ", line_, ": ", message);
  fail("'", document_->origin, "': ", message);
}

void Value::refuse_type(const std::string& wanted) const {
  refuse(what_, " must be ", wanted, ", found ", printable(json_->dump().substr(0, 80)));
}

std::string Value::text() const {
  if (!json_->is_string() || json_->get_ref<const std::string&>().empty()) refuse_type("a non-empty string");
  return json_->get<std::string>();
}

std::string Value::one_of(const std::vector<std::string>& choices) const {
  std::string all;
  for (const std::string& choice : choices) {
    if (json_->is_string() && json_->get_ref<const std::string&>() == choice) return choice;
    all += cat(all.empty() ? "" : ", ", choice);
  }
  refuse_type(choices.size() == 1 ? all : cat("one of ", all));
}

double Value::number(double low, double high) const {
  if (!json_->is_number() || !(json_->get<double>() >= low && json_->get<double>() <= high))
    refuse_type(cat("a number from ", low, " to ", high));
  return json_->get<double>();
}

Index Value::integer(Index low, Index high) const {
  const bool fits =
      json_->is_number_integer() && !(json_->is_number_unsigned() && json_->get<std::uint64_t>() > INT64_MAX);
  if (!fits || json_->get<std::int64_t>() < low || json_->get<std::int64_t>() > high)
    refuse_type(cat("an integer from ", low, " to ", high));
  return json_->get<Index>();
}

std::vector<Value> Value::items() const {
  if (!json_->is_array()) refuse_type("a list");
  std::vector<Value> all;
  for (std::size_t i = 0; i < json_->size(); ++i) {
    Value item = *this;
    item.json_ = &(*json_)[i];
    item.place_ = place_ && i < place_->items.size() ? &place_->items[i] : nullptr;
    if (item.place_) item.line_ = item.place_->line;
    item.what_ = cat("entry ", i, " of ", what_);
    all.push_back(std::move(item));
  }
  return all;
}

std::vector<Value> Value::items_or_single() const {
  if (json_->is_array()) return items();
  return {*this};
}

Value Value::at(const std::string& key) const {
  assert(json_->contains(key));
  Value member = *this;
  member.json_ = &(*json_)[key];
  const auto found = place_ ? place_->keys.find(key) : std::map<std::string, Place>::const_iterator{};
  member.place_ = place_ && found != place_->keys.end() ? &found->second : nullptr;
  if (member.place_) member.line_ = member.place_->line;
  member.what_ =
      json_ == &document_->json ? cat("'", printable(key), "'") : cat("'", printable(key), "' of ", what_);
  return member;
}

Section::Section(Value value) : value_(std::move(value)) {
  if (!value_.json().is_object()) value_.refuse_type("an object");
}

Value Section::get(const std::string& key) {
  known_.push_back(key);
  if (!has(key)) value_.refuse(value_.what(), " lacks the key '", key, "'");
  return value_.at(key);
}

Json Section::rest() {
  Json rest = Json::object();
  for (const auto& [key, member] : value_.json().items())
    if (std::find(known_.begin(), known_.end(), key) == known_.end()) rest[key] = member;
  for (const auto& [key, member] : rest.items()) known_.push_back(key);
  return rest;
}

void Section::finish() const {
  for (const auto& [key, member] : value_.json().items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    std::string all;
    for (const std::string& known : known_) all += cat(all.empty() ? "" : ", ", known);
    value_.at(key).refuse(value_.what(), " has an unknown key '", printable(key), "'; it may have ", all);
  }
}

}  // namespace plait::ablate
