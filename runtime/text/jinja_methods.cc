#include "runtime/text/jinja_methods.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/text/jinja_operators.h"
#include "runtime/text/python_text.h"

namespace plait::jinja {
namespace {

using python::Side;

struct Call {
  Machine& machine;
  const Value& self;
  const Arguments& arguments;
  const std::string& name;

  Arguments::Bound bind(std::initializer_list<const char*> names, std::size_t required) const {
    return arguments.bind(name, names, required);
  }
  void none() const { bind({}, 0); }
  const std::string& text() const { return *self.text(); }
};
using Body = Value (*)(const Call&);

struct Method {
  std::string_view name;
  Body body;  // null: Python has it, this interpreter has not
};

Value text_list(Machine& machine, std::vector<std::string> texts) {
  machine.make(texts.size() * (sizeof(Value) + 48));
  Values items;
  for (std::string& text : texts) items.emplace_back(std::move(text));
  return list(std::move(items));
}

std::int64_t limit_of(const std::optional<Value>& value, const char* what) {
  return value ? integer_argument(*value, what) : -1;
}

// ---- str

template <std::string (*change)(std::string_view)>
Value changed(const Call& call) {
  call.none();
  return Value(change(call.text()), call.self.as<Text>()->markup);
}

template <bool (*of_class)(char32_t)>
Value every(const Call& call) {
  call.none();
  return python::all(call.text(), of_class);
}

template <bool (*holds)(std::string_view)>
Value whole(const Call& call) {
  call.none();
  return holds(call.text());
}

template <Side side>
Value stripped(const Call& call) {
  const auto given = call.bind({"/chars"}, 0);
  const std::string& text = call.text();
  const bool spaces = !given[0] || given[0]->is<None>();
  return Value(
      std::string(spaces ? python::strip(text, side)
                         : python::strip(text, side, text_argument(*given[0], "the argument of 'strip'"))),
      call.self.as<Text>()->markup);
}

template <Side from>
Value split(const Call& call) {
  const auto given = call.bind({"sep", "maxsplit"}, 0);
  const std::int64_t limit = limit_of(given[1], "the limit of 'split'");
  if (!given[0] || given[0]->is<None>())
    return text_list(call.machine, python::split(call.text(), limit, from));
  const std::string& separator = text_argument(*given[0], "the separator of 'split'");
  if (separator.empty()) fail("the separator of 'split' is empty");
  return text_list(call.machine, python::split(call.text(), separator, limit, from));
}

Value split_lines(const Call& call) {
  const auto given = call.bind({"keepends"}, 0);
  const bool keep = given[0] && integer_argument(*given[0], "the argument of 'splitlines'") != 0;
  return text_list(call.machine,
                   python::split_lines(call.text(), keep ? python::LineEnds::keep : python::LineEnds::drop));
}

template <Side from>
Value partition(const Call& call) {
  const std::string separator = text_argument(*call.bind({"/sep"}, 1)[0], "the separator of 'partition'");
  if (separator.empty()) fail("the separator of 'partition' is empty");
  const std::string& text = call.text();
  const std::size_t at = from == Side::left ? text.find(separator) : text.rfind(separator);
  if (at == std::string::npos)
    return from == Side::left ? tuple({Value(text), Value(""), Value("")})
                              : tuple({Value(""), Value(""), Value(text)});
  return tuple({Value(text.substr(0, at)), Value(separator), Value(text.substr(at + separator.size()))});
}

// The part [start, end) of the text two optional arguments name, as Python's find and startswith take it;
// nothing if it begins behind the end.
struct Part {
  std::string text;
  std::int64_t first;
};
std::optional<Part> part_of(const Call& call, const std::optional<Value>& start,
                            const std::optional<Value>& end) {
  if (!start && !end) return Part{call.text(), 0};
  const auto size = static_cast<std::int64_t>(python::length(call.text()));
  const auto placed = [&](const std::optional<Value>& bound, std::int64_t fallback) {
    if (!bound || bound->is<None>()) return fallback;
    const std::int64_t at = integer_argument(*bound, "a bound of '" + call.name + "'");
    return at < 0 ? std::max<std::int64_t>(at + size, 0) : at;
  };
  const std::int64_t first = placed(start, 0), last = std::min(placed(end, size), size);
  if (first > last) return std::nullopt;
  return Part{python::pick(call.text(), first, 1, static_cast<std::size_t>(last - first)), first};
}

template <Side side>
bool begins_or_ends(const std::string& text, const std::string& with) {
  return side == Side::left ? text.starts_with(with) : text.ends_with(with);
}

template <Side side>
Value begins(const Call& call) {
  const auto given = call.bind({"/prefix", "/start", "/end"}, 1);
  const auto part = part_of(call, given[1], given[2]);
  const std::string what = "the argument of '" + call.name + "'";
  if (!given[0]->is<Tuple>()) {
    const std::string& with = text_argument(*given[0], what);
    return part && begins_or_ends<side>(part->text, with);
  }
  for (const Value& with : *given[0]->items())
    if (const std::string& text = text_argument(with, what); part && begins_or_ends<side>(part->text, text))
      return true;
  return false;
}

// Code point where the text is found, -1 if it is not.
template <Side from>
std::int64_t found(const Call& call) {
  const auto given = call.bind({"/sub", "/start", "/end"}, 1);
  const std::string& wanted = text_argument(*given[0], "the argument of '" + call.name + "'");
  const auto part = part_of(call, given[1], given[2]);
  if (!part) return -1;
  const std::size_t at = from == Side::left ? part->text.find(wanted) : part->text.rfind(wanted);
  if (at == std::string::npos) return -1;
  return part->first + static_cast<std::int64_t>(python::length(std::string_view(part->text).substr(0, at)));
}

template <Side from>
Value find(const Call& call) {
  return found<from>(call);
}

template <Side from>
Value text_index(const Call& call) {
  const std::int64_t at = found<from>(call);
  if (at < 0) fail("'", call.name, "' does not find the text it looks for");
  return at;
}

Value count_text(const Call& call) {
  const auto given = call.bind({"/sub", "/start", "/end"}, 1);
  const std::string& wanted = text_argument(*given[0], "the argument of 'count'");
  const auto part = part_of(call, given[1], given[2]);
  if (!part) return 0;
  if (wanted.empty()) return static_cast<std::int64_t>(python::length(part->text)) + 1;
  std::int64_t count = 0;
  for (std::size_t at = part->text.find(wanted); at != std::string::npos;
       at = part->text.find(wanted, at + wanted.size()))
    ++count;
  return count;
}

Value replace(const Call& call) {
  const auto given = call.bind({"/old", "/new", "/count"}, 2);
  return replaced(call.machine, call.text(), text_argument(*given[0], "the first argument of 'replace'"),
                  text_argument(*given[1], "the second argument of 'replace'"),
                  limit_of(given[2], "the count of 'replace'"));
}

Value join(const Call& call) {
  const Value items = *call.bind({"/iterable"}, 1)[0];
  const auto walk = iterate(items);
  std::string out;
  bool first = true;
  while (const auto one = walk->next(call.machine)) {
    const std::string& piece = text_argument(*one, "an item of 'join'");
    call.machine.make(piece.size() + call.text().size());
    if (!std::exchange(first, false)) out += call.text();
    out += piece;
  }
  return out;
}

enum class Place { left, right, middle };
template <Place place>
Value justified(const Call& call) {
  const auto given = call.bind({"/width", "/fillchar"}, 1);
  const std::string fill = given[1] ? text_argument(*given[1], "the fill of '" + call.name + "'") : " ";
  if (python::length(fill) != 1) fail("the fill of '", call.name, "' is not one character");
  const std::int64_t width = integer_argument(*given[0], "the width of '" + call.name + "'");
  if (place == Place::middle) return centered(call.machine, call.text(), width, fill);
  const auto size = static_cast<std::int64_t>(python::length(call.text()));
  const Value padding =
      combine(call.machine, Operator::multiply, Value(fill), Value(std::max<std::int64_t>(width - size, 0)));
  return place == Place::left ? *padding.text() + call.text() : call.text() + *padding.text();
}

Value zero_filled(const Call& call) {
  const std::int64_t width = integer_argument(*call.bind({"/width"}, 1)[0], "the width of 'zfill'");
  const auto size = static_cast<std::int64_t>(python::length(call.text()));
  const Value zeros =
      combine(call.machine, Operator::multiply, Value("0"), Value(std::max<std::int64_t>(width - size, 0)));
  const bool has_sign = call.text().starts_with('-') || call.text().starts_with('+');
  return call.text().substr(0, has_sign ? 1 : 0) + *zeros.text() + call.text().substr(has_sign ? 1 : 0);
}

template <Side side>
Value without(const Call& call) {
  const std::string& part = text_argument(*call.bind({"/part"}, 1)[0], "the argument of '" + call.name + "'");
  const std::string& text = call.text();
  if (part.empty() || !begins_or_ends<side>(text, part)) return text;
  return side == Side::left ? text.substr(part.size()) : text.substr(0, text.size() - part.size());
}

bool is_ascii(char32_t c) { return c < 0x80; }

// Of these two Python says that an empty text has them.
template <bool (*of_class)(char32_t)>
Value every_or_empty(const Call& call) {
  call.none();
  return call.text().empty() || python::all(call.text(), of_class);
}

bool is_alnum(char32_t c) {
  if (python::is_alpha(c) || python::is_digit(c)) return true;
  if (python::is_word(c) && c != '_')
    fail("'isalnum' is asked of a number that is no digit, which is not interpreted");
  return false;
}

constexpr Method kTextMethods[] = {
    {"split", split<Side::left>},
    {"rsplit", split<Side::right>},
    {"strip", stripped<Side::both>},
    {"lstrip", stripped<Side::left>},
    {"rstrip", stripped<Side::right>},
    {"startswith", begins<Side::left>},
    {"endswith", begins<Side::right>},
    {"replace", replace},
    {"join", join},
    {"upper", changed<python::upper>},
    {"lower", changed<python::lower>},
    {"title", changed<python::title>},
    {"capitalize", changed<python::capitalize>},
    {"swapcase", changed<python::swapcase>},
    {"find", find<Side::left>},
    {"rfind", find<Side::right>},
    {"index", text_index<Side::left>},
    {"rindex", text_index<Side::right>},
    {"count", count_text},
    {"splitlines", split_lines},
    {"partition", partition<Side::left>},
    {"rpartition", partition<Side::right>},
    {"isdigit", every<python::is_digit>},
    {"isdecimal", every<python::is_decimal>},
    {"isalpha", every<python::is_alpha>},
    {"isalnum", every<is_alnum>},
    {"isspace", every<python::is_space>},
    {"isascii", every_or_empty<is_ascii>},
    {"isupper", whole<python::all_upper>},
    {"islower", whole<python::all_lower>},
    {"ljust", justified<Place::right>},
    {"rjust", justified<Place::left>},
    {"center", justified<Place::middle>},
    {"zfill", zero_filled},
    {"removeprefix", without<Side::left>},
    {"removesuffix", without<Side::right>},
    {"casefold", nullptr},
    {"encode", nullptr},
    {"expandtabs", nullptr},
    {"format", nullptr},
    {"format_map", nullptr},
    {"isidentifier", nullptr},
    {"isnumeric", nullptr},
    {"isprintable", every_or_empty<python::is_printable>},
    {"istitle", nullptr},
    {"maketrans", nullptr},
    {"translate", nullptr},
};
// These mean the same on text marked safe.
constexpr std::string_view kPlainOnMarkup[] = {"strip",   "lstrip",  "rstrip",  "startswith", "endswith",
                                               "upper",   "lower",   "title",   "capitalize", "swapcase",
                                               "find",    "rfind",   "index",   "count",      "isdigit",
                                               "isalpha", "isspace", "isupper", "islower"};

// ---- list and tuple

Value count_items(const Call& call) {
  const Value wanted = *call.bind({"/value"}, 1)[0];
  std::int64_t count = 0;
  for (const Value& one : *call.self.items()) count += equal(call.machine, one, wanted) ? 1 : 0;
  return count;
}

Value item_index(const Call& call) {
  const auto given = call.bind({"/value", "/start", "/stop"}, 1);
  if (given[1] || given[2]) fail("'index' with bounds is not interpreted");
  const Values& items = *call.self.items();
  for (std::size_t i = 0; i < items.size(); ++i)
    if (equal(call.machine, items[i], *given[0])) return static_cast<std::int64_t>(i);
  fail("'index' does not find the value it looks for");
}

Value itself(const Call& call) {
  call.none();
  return call.self;
}

constexpr Method kListMethods[] = {{"count", count_items}, {"index", item_index}, {"copy", itself}};
constexpr Method kTupleMethods[] = {{"count", count_items}, {"index", item_index}};
constexpr std::string_view kListChanges[] = {"append", "clear",  "extend",  "insert",
                                             "pop",    "remove", "reverse", "sort"};

// ---- dict

const Dictionary& entries(const Call& call) { return *call.self.as<Dict>()->of; }

Value get(const Call& call) {
  const auto given = call.bind({"/key", "/default"}, 1);
  const Value* found = entries(call).find(call.machine, *given[0]);
  return found ? *found : given[1].value_or(Value());
}

Value keys(const Call& call) {
  call.none();
  call.machine.step(entries(call).size());
  Values all;
  for (const auto& [key, value] : entries(call).items()) all.push_back(key);
  return view("dict_keys", std::move(all));
}

Value values(const Call& call) {
  call.none();
  call.machine.step(entries(call).size());
  Values all;
  for (const auto& [key, value] : entries(call).items()) all.push_back(value);
  return view("dict_values", std::move(all));
}

Value items(const Call& call) {
  call.none();
  call.machine.step(entries(call).size());
  Values all;
  for (const auto& [key, value] : entries(call).items()) all.push_back(tuple({key, value}));
  return view("dict_items", std::move(all));
}

constexpr Method kDictMethods[] = {{"get", get},     {"keys", keys},   {"values", values},
                                   {"items", items}, {"copy", itself}, {"fromkeys", nullptr}};
constexpr std::string_view kDictChanges[] = {"clear", "pop", "popitem", "setdefault", "update"};

// ---- numbers

Value is_integer(const Call& call) {
  call.none();
  const double value = *call.self.as<double>();
  return std::isfinite(value) && value == std::floor(value);
}

constexpr Method kRealMethods[] = {
    {"is_integer", is_integer}, {"as_integer_ratio", nullptr}, {"conjugate", nullptr}, {"hex", nullptr}};

class BoundMethod final : public Callable {
 public:
  BoundMethod(Value self, std::string name, Body body)
      : self_(std::move(self)), name_(std::move(name)), body_(body) {}
  std::string name() const override { return name_; }
  Value call(Machine& machine, const Arguments& arguments) const override {
    if (!body_) fail("the method '", name_, "' of ", type_name(self_), " is not interpreted");
    const auto* text = self_.as<Text>();
    const bool plain =
        std::find(std::begin(kPlainOnMarkup), std::end(kPlainOnMarkup), name_) != std::end(kPlainOnMarkup);
    if (text && text->markup == Markup::yes && !plain)
      fail("the method '", name_, "' of text marked safe is not interpreted");
    if (text) machine.step(1 + text->bytes->size() / 16);
    return body_({machine, self_, arguments, name_});
  }
  int depth() const override { return self_.depth() + 1; }

 private:
  Value self_;
  std::string name_;
  Body body_;
};

template <std::size_t N>
std::optional<Value> bound(const Method (&methods)[N], const Value& self, const std::string& name) {
  const auto at = std::find_if(std::begin(methods), std::end(methods),
                               [&](const Method& one) { return one.name == name; });
  if (at == std::end(methods)) return std::nullopt;
  return Value::of<std::shared_ptr<const Callable>>(std::make_shared<BoundMethod>(self, name, at->body));
}

template <std::size_t N>
std::optional<Value> forbidden(const std::string_view (&names)[N], const Value& self,
                               const std::string& name) {
  if (std::find(std::begin(names), std::end(names), name) == std::end(names)) return std::nullopt;
  return undefined("the template may not call '" + name + "', which changes a " + type_name(self));
}

}  // namespace

std::optional<Value> method(const Value& value, const std::string& name) {
  if (value.text()) return bound(kTextMethods, value, name);
  if (value.is<List>()) {
    const auto found = bound(kListMethods, value, name);
    return found ? found : forbidden(kListChanges, value, name);
  }
  if (value.is<Tuple>()) return bound(kTupleMethods, value, name);
  if (value.is<Dict>()) {
    const auto found = bound(kDictMethods, value, name);
    return found ? found : forbidden(kDictChanges, value, name);
  }
  if (value.is<double>()) return bound(kRealMethods, value, name);
  return std::nullopt;
}

}  // namespace plait::jinja
