#include "runtime/text/jinja_filters.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iterator>

#include "runtime/base/error.h"
#include "runtime/text/jinja_methods.h"
#include "runtime/text/jinja_operators.h"
#include "runtime/text/python_text.h"

namespace plait::jinja {
namespace {

using python::Side;

struct Filtered {
  Machine& machine;
  const Value& value;
  const Arguments& arguments;
  const std::string& name;

  Arguments::Bound bind(std::initializer_list<const char*> names, std::size_t required = 0) const {
    return arguments.bind(name, names, required);
  }
  void none() const { bind({}); }
  // The value as text, keeping a mark of safety.
  Value text() const { return value.text() ? value : Value(str(machine, value)); }
};

bool is_set(const std::optional<Value>& flag) { return flag && truth(*flag); }

Values listed(Machine& machine, const Value& value) {
  Values all;
  const auto walk = iterate(value);
  while (auto one = walk->next(machine)) {
    machine.make(sizeof(Value));
    all.push_back(std::move(*one));
  }
  return all;
}

// ---- picking attributes and ignoring case

using Key = std::function<Value(const Value&)>;

Value lowered(const Value& value) { return value.text() ? Value(python::lower(*value.text())) : value; }

bool all_digits(const std::string& text) { return python::all(text, python::is_digit); }

// item.a.b for "a.b"; a part of digits is a number. A missing item becomes `fallback` where there is one.
Key attribute_of(Machine& machine, const std::optional<Value>& path, std::optional<Value> fallback = {}) {
  Values parts;
  if (path && path->text()) {
    for (const std::string& part : python::split(*path->text(), ".", -1, Side::left)) {
      const auto number = all_digits(part) ? to_integer(Value(part), 10) : std::nullopt;
      parts.push_back(number ? Value(*number) : Value(part));
    }
  } else if (path && !path->is<None>()) {
    parts.push_back(*path);
  }
  return [&machine, parts, fallback](const Value& value) {
    Value at = value;
    for (const Value& part : parts) {
      at = item(machine, at, part);
      if (fallback && !fallback->is<None>() && at.is<Undefined>()) at = *fallback;
    }
    return at;
  };
}

Key sort_key(Machine& machine, const std::optional<Value>& path, bool case_matters) {
  return [get = attribute_of(machine, path), case_matters](const Value& value) {
    return case_matters ? get(value) : lowered(get(value));
  };
}

// Several attributes, separated by commas, as a list; one as it is.
Key sort_keys(Machine& machine, const std::optional<Value>& paths, bool case_matters) {
  if (!paths || !paths->text()) return sort_key(machine, paths, case_matters);
  std::vector<Key> keys;
  for (const std::string& path : python::split(*paths->text(), ",", -1, Side::left))
    keys.push_back(sort_key(machine, Value(path), case_matters));
  return [keys](const Value& value) {
    Values all;
    for (const Key& key : keys) all.push_back(key(value));
    return list(std::move(all));
  };
}

Values sorted(Machine& machine, const Values& items, const Key& key, bool reverse) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& one : items) keyed.emplace_back(key(one), one);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? compare(machine, b.first, a.first) < 0 : compare(machine, a.first, b.first) < 0;
  });
  Values out;
  for (auto& [unused, one] : keyed) out.push_back(std::move(one));
  return out;
}

// ---- filters that yield

// Items a function makes of another walk's: nothing ends it.
class Mapped final : public Iterator {
 public:
  using Step = std::function<std::optional<Value>(Machine&, Iterator&)>;
  Mapped(std::shared_ptr<Iterator> source, int depth, Step step)
      : Iterator(std::max(source->depth(), depth) + 1), source_(std::move(source)), step_(std::move(step)) {}
  std::optional<Value> next(Machine& machine) override {
    const Machine::Nested nested(machine);
    return step_(machine, *source_);
  }

 private:
  std::shared_ptr<Iterator> source_;
  Step step_;
};

// Python's generator functions look at their value when the first item is asked for.
class Late final : public Iterator {
 public:
  explicit Late(Value value) : Iterator(value.depth() + 1), value_(std::move(value)) {}
  std::optional<Value> next(Machine& machine) override {
    if (!walk_) walk_ = iterate(value_);
    return walk_->next(machine);
  }

 private:
  Value value_;
  std::shared_ptr<Iterator> walk_;
};

int depth_of(const Arguments& arguments) {
  int depth = 1;
  for (const Value& value : arguments.positional) depth = std::max(depth, value.depth());
  for (const auto& [name, value] : arguments.named) depth = std::max(depth, value.depth());
  return depth;
}

Value yielded(const Filtered& f, const char* made_by, Mapped::Step step) {
  auto walk =
      std::make_shared<Mapped>(std::make_shared<Late>(f.value), depth_of(f.arguments), std::move(step));
  return Value::of(Generator{std::move(walk), made_by});
}

Arguments without_first(const Arguments& arguments, std::size_t count) {
  Arguments rest = arguments;
  const auto taken = static_cast<std::ptrdiff_t>(std::min(count, rest.positional.size()));
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + taken);
  return rest;
}

// Jinja's map and select begin with `if value`, so something false yields nothing.
bool skipped(const Filtered& f) { return !truth(f.value); }

Value map(const Filtered& f) {
  if (skipped(f)) return yielded(f, "map", [](Machine&, Iterator&) { return std::optional<Value>(); });
  Key change;
  if (f.arguments.positional.empty()) {
    const auto given = f.bind({"/unused", "attribute", "default"});
    if (!given[1]) fail("the filter 'map' wants a filter or an attribute");
    change = attribute_of(f.machine, given[1], given[2]);
  } else {
    const std::string name = text_argument(f.arguments.positional[0], "the filter of 'map'");
    change = [&machine = f.machine, name, rest = without_first(f.arguments, 1)](const Value& one) {
      return apply_filter(machine, name, one, rest);
    };
  }
  return yielded(f, "map", [change](Machine& machine, Iterator& source) {
    const auto one = source.next(machine);
    return one ? std::optional(change(*one)) : std::nullopt;
  });
}

enum class Look { at_item, at_attribute };
enum class Keep { passing, failing };

template <Look look, Keep keep>
Value select(const Filtered& f) {
  if (skipped(f)) return yielded(f, "select", [](Machine&, Iterator&) { return std::optional<Value>(); });
  constexpr std::size_t kPath = look == Look::at_attribute ? 1 : 0;
  const Values& given = f.arguments.positional;
  if (given.size() < kPath) fail("the filter '", f.name, "' wants an attribute");
  const Key get =
      look == Look::at_attribute ? attribute_of(f.machine, given[0]) : attribute_of(f.machine, {});
  const bool tested = given.size() > kPath;
  const std::string test = tested ? text_argument(given[kPath], "the test of '" + f.name + "'") : "";
  return yielded(
      f, "select", [=, rest = without_first(f.arguments, kPath + 1)](Machine& machine, Iterator& source) {
        while (auto one = source.next(machine)) {
          const Value looked_at = get(*one);
          const bool passes = tested ? apply_test(machine, test, looked_at, rest) : truth(looked_at);
          if (passes == (keep == Keep::passing)) return one;
        }
        return std::optional<Value>();
      });
}

Value unique(const Filtered& f) {
  const auto given = f.bind({"case_sensitive", "attribute"});
  const Key key = sort_key(f.machine, given[1], is_set(given[0]));
  return yielded(f, "unique",
                 [key, seen = std::make_shared<Dictionary>()](Machine& machine, Iterator& source) {
                   while (auto one = source.next(machine)) {
                     const Value mark = key(*one);
                     if (seen->find(machine, mark)) continue;
                     seen->set(machine, mark, Value());
                     return one;
                   }
                   return std::optional<Value>();
                 });
}

Value items(const Filtered& f) {
  f.none();
  if (!f.value.is<Dict>() && !f.value.is<Undefined>())
    fail("the filter 'items' wants a dict, not a value of type ", type_name(f.value));
  Values pairs;
  if (const auto* dict = f.value.as<Dict>())
    for (const auto& [key, value] : dict->of->items()) pairs.push_back(tuple({key, value}));
  f.machine.step(pairs.size());
  return Value::of(Generator{iterate(list(std::move(pairs))), "items"});
}

Value reverse(const Filtered& f) {
  f.none();
  if (const auto* text = f.value.as<Text>())
    return Value(*slice(f.machine, f.value, nullptr, nullptr, std::make_unique<Value>(-1).get()).text(),
                 text->markup);
  Values all = listed(f.machine, f.value);
  std::reverse(all.begin(), all.end());
  if (f.value.is<Generator>()) return list(std::move(all));
  return Value::of(Generator{iterate(list(std::move(all))), "reverse"});
}

Value batch(const Filtered& f) {
  const auto given = f.bind({"linecount", "fill_with"}, 1);
  const std::int64_t count = integer_argument(*given[0], "the size of 'batch'");
  if (count < 1) fail("the size of 'batch' is ", count);
  const std::optional<Value> fill = given[1] && !given[1]->is<None>() ? given[1] : std::nullopt;
  return yielded(f, "batch", [=](Machine& machine, Iterator& source) -> std::optional<Value> {
    Values line;
    while (static_cast<std::int64_t>(line.size()) < count) {
      auto one = source.next(machine);
      if (!one && (line.empty() || !fill)) break;
      machine.make(sizeof(Value));
      line.push_back(one ? *one : *fill);
    }
    return line.empty() ? std::nullopt : std::optional(list(std::move(line)));
  });
}

// ---- filters of sequences

Value as_list(const Filtered& f) {
  f.none();
  return list(listed(f.machine, f.value));
}

Value first(const Filtered& f) {
  f.none();
  auto one = iterate(f.value)->next(f.machine);
  return one ? *one : undefined("No first item, sequence was empty.");
}

Value last(const Filtered& f) {
  f.none();
  if (f.value.is<Generator>())
    fail("the filter 'last' wants something that can be walked backwards, not a generator");
  Values all = listed(f.machine, f.value);
  return all.empty() ? undefined("No last item, sequence was empty.") : all.back();
}

Value length_of(const Filtered& f) {
  f.none();
  const auto count = length(f.machine, f.value);
  if (!count) fail("a value of type ", type_name(f.value), " has no length");
  return *count;
}

Value join(const Filtered& f) {
  const auto given = f.bind({"d", "attribute"});
  const std::string separator = given[0] ? str(f.machine, *given[0]) : "";
  const Key get = attribute_of(f.machine, given[1]);
  std::string out;
  bool beginning = true;
  const auto walk = iterate(f.value);
  while (const auto one = walk->next(f.machine)) {
    const std::string piece = str(f.machine, get(*one));
    f.machine.make(piece.size() + separator.size());
    if (!std::exchange(beginning, false)) out += separator;
    out += piece;
  }
  return out;
}

Value sort(const Filtered& f) {
  const auto given = f.bind({"reverse", "case_sensitive", "attribute"});
  const Key key = sort_keys(f.machine, given[2], is_set(given[1]));
  return list(sorted(f.machine, listed(f.machine, f.value), key, is_set(given[0])));
}

Value sort_dict(const Filtered& f) {
  const auto given = f.bind({"case_sensitive", "by", "reverse"});
  const std::string by = given[1] ? text_argument(*given[1], "the key of 'dictsort'") : "key";
  if (by != "key" && by != "value") fail("'dictsort' sorts by key or value, not by '", by, "'");
  const auto* dict = f.value.as<Dict>();
  if (!dict) fail("the filter 'dictsort' wants a dict, not a value of type ", type_name(f.value));
  Values pairs;
  for (const auto& [key, value] : dict->of->items()) pairs.push_back(tuple({key, value}));
  const std::size_t place = by == "key" ? 0 : 1;
  const bool case_matters = is_set(given[0]);
  const Key key = [=](const Value& pair) {
    const Value& one = (*pair.items())[place];
    return case_matters ? one : lowered(one);
  };
  return list(sorted(f.machine, pairs, key, is_set(given[2])));
}

template <int direction>
Value extreme(const Filtered& f) {
  const auto given = f.bind({"case_sensitive", "attribute"});
  const Key key = sort_key(f.machine, given[1], is_set(given[0]));
  const auto walk = iterate(f.value);
  auto best = walk->next(f.machine);
  if (!best) return undefined("No aggregated item, sequence was empty.");
  Value best_key = key(*best);
  while (auto one = walk->next(f.machine)) {
    Value its_key = key(*one);
    const auto order = compare(f.machine, its_key, best_key);
    if (direction < 0 ? !(order < 0) : !(order > 0)) continue;
    best = std::move(one);
    best_key = std::move(its_key);
  }
  return *best;
}

Value sum(const Filtered& f) {
  const auto given = f.bind({"attribute", "start"});
  const Key get = attribute_of(f.machine, given[0]);
  Value total = given[1].value_or(Value(0));
  if (total.text()) fail("the filter 'sum' cannot add texts");
  const auto walk = iterate(f.value);
  while (const auto one = walk->next(f.machine)) {
    total = combine(f.machine, Operator::add, total, get(*one));
    f.machine.make(total);
  }
  return total;
}

// ---- filters of text

template <std::string (*change)(std::string_view)>
Value changed(const Filtered& f) {
  f.none();
  const Value text = f.text();
  return Value(change(*text.text()), text.as<Text>()->markup);
}

Value trim(const Filtered& f) {
  const auto given = f.bind({"chars"});
  const Value text = f.text();
  const bool spaces = !given[0] || given[0]->is<None>();
  const std::string_view left =
      spaces ? python::strip(*text.text(), Side::both)
             : python::strip(*text.text(), Side::both, text_argument(*given[0], "the characters of 'trim'"));
  return Value(std::string(left), text.as<Text>()->markup);
}

// Capital letters after the start, white space, hyphens and opening brackets.
Value title(const Filtered& f) {
  f.none();
  const std::u32string all = python::wide(str(f.machine, f.value));
  const auto separates = [](char32_t c) {
    return python::is_space(c) || std::u32string_view(U"-({[<").find(c) != std::u32string_view::npos;
  };
  std::string out;
  for (std::size_t at = 0; at < all.size();) {
    std::size_t end = at;
    while (end < all.size() && separates(all[end]) == separates(all[at])) ++end;
    out += python::upper(python::narrow(std::u32string_view(all).substr(at, 1)));
    out += python::lower(python::narrow(std::u32string_view(all).substr(at + 1, end - at - 1)));
    at = end;
  }
  return out;
}

Value replace(const Filtered& f) {
  const auto given = f.bind({"old", "new", "count"}, 2);
  const std::int64_t limit =
      given[2] && !given[2]->is<None>() ? integer_argument(*given[2], "the count of 'replace'") : -1;
  return replaced(f.machine, str(f.machine, f.value), str(f.machine, *given[0]), str(f.machine, *given[1]),
                  limit);
}

Value indent(const Filtered& f) {
  const auto given = f.bind({"width", "first", "blank"});
  const std::string& text = text_argument(f.value, "what 'indent' moves");
  if (f.value.as<Text>()->markup == Markup::yes)
    fail("the filter 'indent' of text marked safe is not interpreted");
  const Value width = given[0].value_or(Value(4));
  const std::string margin =
      width.text() ? *width.text() : *combine(f.machine, Operator::multiply, Value(" "), width).text();
  const std::vector<std::string> lines = python::split_lines(text + "\n", python::LineEnds::drop);
  std::string out = is_set(given[1]) ? margin : "";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    f.machine.make(margin.size() + lines[i].size());
    if (i > 0) out += "\n";
    if (i > 0 && (is_set(given[2]) || !lines[i].empty())) out += margin;
    out += lines[i];
  }
  return out;
}

Value truncate(const Filtered& f) {
  const auto given = f.bind({"length", "killwords", "end", "leeway"});
  const auto number = [&](std::size_t i, std::int64_t fallback) {
    return given[i] && !given[i]->is<None>() ? integer_argument(*given[i], "an argument of 'truncate'")
                                             : fallback;
  };
  const std::string end = given[2] ? text_argument(*given[2], "the end of 'truncate'") : "...";
  const auto end_size = static_cast<std::int64_t>(python::length(end));
  const std::int64_t size = number(0, 255), leeway = number(3, 5);
  if (size < end_size || leeway < 0)
    fail("the filter 'truncate' is given a length of ", size, " and a leeway of ", leeway);
  const auto whole = length(f.machine, f.value);
  if (whole && *whole - leeway <= size) return f.value;
  const std::string& text = text_argument(f.value, "what 'truncate' shortens");
  const std::string kept = python::pick(text, 0, 1, static_cast<std::size_t>(size - end_size));
  return is_set(given[1]) ? kept + end : python::split(kept, " ", 1, Side::right)[0] + end;
}

Value count_words(const Filtered& f) {
  f.none();
  std::int64_t count = 0;
  bool inside = false;
  for (const char32_t c : python::wide(str(f.machine, f.value))) {
    const bool word = python::is_word(c);
    count += word && !inside ? 1 : 0;
    inside = word;
  }
  return count;
}

Value center(const Filtered& f) {
  const auto given = f.bind({"width"});
  const Value text = f.text();
  const std::int64_t width = given[0] ? integer_argument(*given[0], "the width of 'center'") : 80;
  return Value(centered(f.machine, *text.text(), width, " "), text.as<Text>()->markup);
}

Value format(const Filtered& f) {
  if (!f.arguments.named.empty()) fail("the filter 'format' with named values is not interpreted");
  return printf_style(f.machine, *f.text().text(), tuple(f.arguments.positional));
}

Value escape(const Filtered& f) {
  f.none();
  return escaped(f.machine, f.value);
}

Value force_escape(const Filtered& f) {
  f.none();
  return escaped(f.machine, Value(str(f.machine, f.value)));
}

Value safe(const Filtered& f) {
  f.none();
  return Value(str(f.machine, f.value), Markup::yes);
}

Value string(const Filtered& f) {
  f.none();
  return f.text();
}

// ---- filters of numbers

Value to_int(const Filtered& f) {
  const auto given = f.bind({"default", "base"});
  const std::int64_t base = given[1] ? integer_argument(*given[1], "the base of 'int'") : 10;
  if (const auto integer = to_integer(f.value, static_cast<int>(base))) return *integer;
  const auto real = to_real(f.value);
  if (real && std::isfinite(*real)) return *to_integer(Value(*real), 10);
  return given[0].value_or(Value(0));
}

Value to_float(const Filtered& f) {
  const auto given = f.bind({"default"});
  const auto real = to_real(f.value);
  return real ? Value(*real) : given[0].value_or(Value(0.0));
}

Value absolute(const Filtered& f) {
  f.none();
  want_defined(f.value);
  if (const auto* real = f.value.as<double>()) return std::abs(*real);
  const std::int64_t integer = integer_argument(f.value, "what 'abs' is asked of");
  return integer < 0 ? negative(Value(integer)) : Value(integer);
}

// Python's round(): to the nearest, ties to even, decided on the exact value.
double rounded(double value, std::int64_t digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits >= 0) {
    char text[1024];
    std::snprintf(text, sizeof text, "%.*f", static_cast<int>(digits), value);
    return std::strtod(text, nullptr);
  }
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  const double scaled = value / unit;
  double near = std::round(scaled);
  if (std::abs(scaled - near) == 0.5) near = 2 * std::round(scaled / 2);
  return near * unit;
}

Value rounded_integer(std::int64_t value, std::int64_t digits) {
  constexpr std::int64_t kFar = std::int64_t{1} << 62;
  if (digits >= 0) return value;
  if (digits < -18) return 0;
  if (value < -kFar || value > kFar) fail("'round' is asked of an integer too large to round to tens");
  std::int64_t unit = 1;
  for (; digits < 0; ++digits) unit *= 10;
  const std::int64_t rest = ((value % unit) + unit) % unit, low = value - rest;
  const bool up = 2 * rest > unit || (2 * rest == unit && (low / unit) % 2 != 0);
  return up ? low + unit : low;
}

Value round_to(const Filtered& f) {
  const auto given = f.bind({"precision", "method"});
  const std::int64_t digits = given[0] ? integer_argument(*given[0], "the precision of 'round'") : 0;
  const std::string way = given[1] ? text_argument(*given[1], "the method of 'round'") : "common";
  if (way != "common" && way != "ceil" && way != "floor") fail("the method of 'round' is '", way, "'");
  want_defined(f.value);
  const bool real = f.value.is<double>();
  if (!real) integer_argument(f.value, "what 'round' is asked of");
  const double value = *to_real(f.value);
  if (way == "common")
    return real ? Value(rounded(value, digits)) : rounded_integer(*to_integer(f.value, 10), digits);
  if (digits < 0 || digits > 15)
    fail("'round' with the method '", way, "' and a precision of ", digits, " is not interpreted");
  const double unit = std::pow(10.0, static_cast<double>(digits)), scaled = value * unit;
  if (!std::isfinite(scaled)) fail("'round' is asked of a number that is not finite");
  return (way == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit +
         0.0;  // no negative zero, as Python's integers have none
}

// ---- others

Value fallback(const Filtered& f) {
  const auto given = f.bind({"default_value", "boolean"});
  const bool replaced = f.value.is<Undefined>() || (is_set(given[1]) && !truth(f.value));
  return replaced ? given[0].value_or(Value("")) : f.value;
}

Value attribute_only(const Filtered& f) {
  const std::string name = text_argument(*f.bind({"name"}, 1)[0], "the name of 'attr'");
  want_defined(f.value);
  const bool there = !f.value.is<Dict>() || method(f.value, name).has_value();
  return there ? attribute(f.machine, f.value, name)
               : undefined("'dict object' has no attribute " + python::repr(name));
}

Value json(const Filtered& f) { return to_json(f.machine, f.value, f.arguments); }

struct Filter {
  std::string_view name;
  Value (*apply)(const Filtered&);  // null: Jinja has it, this interpreter has not
};

constexpr Filter kFilters[] = {
    {"abs", absolute},
    {"attr", attribute_only},
    {"batch", batch},
    {"capitalize", changed<python::capitalize>},
    {"center", center},
    {"count", length_of},
    {"d", fallback},
    {"default", fallback},
    {"dictsort", sort_dict},
    {"e", escape},
    {"escape", escape},
    {"filesizeformat", nullptr},
    {"first", first},
    {"float", to_float},
    {"forceescape", force_escape},
    {"format", format},
    {"groupby", nullptr},
    {"indent", indent},
    {"int", to_int},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length_of},
    {"list", as_list},
    {"lower", changed<python::lower>},
    {"map", map},
    {"max", extreme<1>},
    {"min", extreme<-1>},
    {"pprint", nullptr},
    {"random", nullptr},
    {"reject", select<Look::at_item, Keep::failing>},
    {"rejectattr", select<Look::at_attribute, Keep::failing>},
    {"replace", replace},
    {"reverse", reverse},
    {"round", round_to},
    {"safe", safe},
    {"select", select<Look::at_item, Keep::passing>},
    {"selectattr", select<Look::at_attribute, Keep::passing>},
    {"slice", nullptr},
    {"sort", sort},
    {"string", string},
    {"striptags", nullptr},
    {"sum", sum},
    {"title", title},
    {"tojson", json},
    {"trim", trim},
    {"truncate", truncate},
    {"unique", unique},
    {"upper", changed<python::upper>},
    {"urlencode", nullptr},
    {"urlize", nullptr},
    {"wordcount", count_words},
    {"wordwrap", nullptr},
    {"xmlattr", nullptr},
};

const Filter* find_filter(const std::string& name) {
  const auto* at = std::find_if(std::begin(kFilters), std::end(kFilters),
                                [&](const Filter& one) { return one.name == name; });
  return at == std::end(kFilters) ? nullptr : at;
}

}  // namespace

bool has_filter(const std::string& name) { return find_filter(name) != nullptr; }

Value apply_filter(Machine& machine, const std::string& name, const Value& value,
                   const Arguments& arguments) {
  const Machine::Nested nested(machine);
  const Filter* filter = find_filter(name);
  if (!filter) fail("there is no filter '", name, "'");
  if (!filter->apply) fail("the filter '", name, "' is not interpreted");
  return filter->apply({machine, value, arguments, name});
}

}  // namespace plait::jinja
