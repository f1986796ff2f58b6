// What may follow `is`.
#include <algorithm>
#include <array>

#include "runtime/base/error.h"
#include "runtime/text/jinja_filters.h"
#include "runtime/text/jinja_operators.h"
#include "runtime/text/python_text.h"

namespace plait::jinja {
namespace {

struct Asked {
  Machine& machine;
  const Value& value;
  const Values& with;  // as many as the test wants
};

bool leaves(const Asked& asked, std::int64_t rest) {  // divided by two
  return equal(asked.machine, combine(asked.machine, Operator::modulo, asked.value, Value(2)), Value(rest));
}

bool divisible(const Asked& asked) {
  return equal(asked.machine, combine(asked.machine, Operator::modulo, asked.value, asked.with[0]), Value(0));
}

bool is_true(const Asked& asked) { return asked.value.is<bool>() && *asked.value.as<bool>(); }
bool is_false(const Asked& asked) { return asked.value.is<bool>() && !*asked.value.as<bool>(); }

bool is_number(const Asked& asked) {
  return asked.value.is<bool>() || asked.value.is<std::int64_t>() || asked.value.is<double>();
}

// What has a length and items by number or key; an undefined value passes, as in Jinja.
bool is_sequence(const Asked& asked) {
  const Value& value = asked.value;
  return value.items() || value.text() || value.is<Dict>() || value.is<Range>() || value.is<Undefined>();
}

bool same(const Asked& asked) {
  const Value &a = asked.value, &b = asked.with[0];
  const auto plain = [](const Value& value) { return value.is<None>() || value.is<bool>(); };
  if (plain(a) || plain(b)) return a.kinds().index() == b.kinds().index() && equal(asked.machine, a, b);
  if (a.kinds().index() != b.kinds().index()) return false;
  if (const auto* list = a.as<List>()) return list->of == b.as<List>()->of;
  if (const auto* dict = a.as<Dict>()) return dict->of == b.as<Dict>()->of;
  if (const auto* space = a.as<std::shared_ptr<Namespace>>())
    return *space == *b.as<std::shared_ptr<Namespace>>();
  fail("'sameas' between values of type ", type_name(a), " is not interpreted");
}

template <Comparison comparison>
bool compares(const Asked& asked) {
  return compare(asked.machine, comparison, asked.value, asked.with[0]);
}

bool names_one(const Asked& asked, bool (*has)(const std::string&)) {
  hash(asked.machine, asked.value);  // refuses what cannot be a key
  return asked.value.text() && has(*asked.value.text());
}

struct Test {
  std::string_view name;
  std::size_t arguments;
  bool (*passes)(const Asked&);
};

constexpr Test kTests[] = {
    {"defined", 0, [](const Asked& a) { return !a.value.is<Undefined>(); }},
    {"undefined", 0, [](const Asked& a) { return a.value.is<Undefined>(); }},
    {"none", 0, [](const Asked& a) { return a.value.is<None>(); }},
    {"boolean", 0, [](const Asked& a) { return a.value.is<bool>(); }},
    {"true", 0, is_true},
    {"false", 0, is_false},
    {"integer", 0, [](const Asked& a) { return a.value.is<std::int64_t>(); }},
    {"float", 0, [](const Asked& a) { return a.value.is<double>(); }},
    {"number", 0, is_number},
    {"string", 0, [](const Asked& a) { return a.value.text() != nullptr; }},
    {"mapping", 0, [](const Asked& a) { return a.value.is<Dict>(); }},
    {"sequence", 0, is_sequence},
    {"iterable", 0, [](const Asked& a) { return is_iterable(a.value); }},
    {"callable", 0,
     [](const Asked& a) { return a.value.is<std::shared_ptr<const Callable>>() || a.value.is<Undefined>(); }},
    {"lower", 0, [](const Asked& a) { return python::all_lower(str(a.machine, a.value)); }},
    {"upper", 0, [](const Asked& a) { return python::all_upper(str(a.machine, a.value)); }},
    {"odd", 0, [](const Asked& a) { return leaves(a, 1); }},
    {"even", 0, [](const Asked& a) { return leaves(a, 0); }},
    {"divisibleby", 1, divisible},
    {"sameas", 1, same},
    {"in", 1, compares<Comparison::in>},
    {"filter", 0, [](const Asked& a) { return names_one(a, has_filter); }},
    {"test", 0, [](const Asked& a) { return names_one(a, has_test); }},
    {"escaped", 0,
     [](const Asked& a) { return a.value.is<Text>() && a.value.as<Text>()->markup == Markup::yes; }},
    {"==", 1, compares<Comparison::equal>},
    {"eq", 1, compares<Comparison::equal>},
    {"equalto", 1, compares<Comparison::equal>},
    {"!=", 1, compares<Comparison::unequal>},
    {"ne", 1, compares<Comparison::unequal>},
    {">", 1, compares<Comparison::greater>},
    {"gt", 1, compares<Comparison::greater>},
    {"greaterthan", 1, compares<Comparison::greater>},
    {">=", 1, compares<Comparison::greater_equal>},
    {"ge", 1, compares<Comparison::greater_equal>},
    {"<", 1, compares<Comparison::less>},
    {"lt", 1, compares<Comparison::less>},
    {"lessthan", 1, compares<Comparison::less>},
    {"<=", 1, compares<Comparison::less_equal>},
    {"le", 1, compares<Comparison::less_equal>},
};

const Test* find_test(const std::string& name) {
  const auto* at =
      std::find_if(std::begin(kTests), std::end(kTests), [&](const Test& test) { return test.name == name; });
  return at == std::end(kTests) ? nullptr : at;
}

}  // namespace

bool has_test(const std::string& name) { return find_test(name) != nullptr; }

bool apply_test(Machine& machine, const std::string& name, const Value& value, const Arguments& arguments) {
  const Test* test = find_test(name);
  if (!test) fail("there is no test '", name, "'");
  if (!arguments.named.empty() || arguments.positional.size() != test->arguments)
    fail("the test '", name, "' takes ", test->arguments, " arguments, not ",
         arguments.positional.size() + arguments.named.size());
  return test->passes({machine, value, arguments.positional});
}

}  // namespace plait::jinja
