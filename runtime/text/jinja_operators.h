// What operators do, as in Python.
#pragma once

#include "runtime/text/jinja_machine.h"
#include "runtime/text/jinja_syntax.h"

namespace plait::jinja {

// All throw Error where Python raises, and when an integer leaves 64 bits.
Value combine(Machine& machine, Operator operation, const Value& a, const Value& b);
Value negative(const Value& value);
Value positive(const Value& value);
bool compare(Machine& machine, Comparison comparison, const Value& a, const Value& b);
// value[start:stop:step]; null where left out.
Value slice(Machine& machine, const Value& value, const Value* start, const Value* stop, const Value* step);
// value[key]; Undefined if there is none.
Value item(Machine& machine, const Value& value, const Value& key);
// value.name; Undefined if there is none.
Value attribute(Machine& machine, const Value& value, const std::string& name);

// int(), float(): nothing where Python raises ValueError or TypeError.
std::optional<std::int64_t> to_integer(const Value& value, int base);
std::optional<double> to_real(const Value& value);
// An argument that must be an integer (or a bool); `what` names it.
std::int64_t integer_argument(const Value& value, const std::string& what);
const std::string& text_argument(const Value& value, const std::string& what);
// Text with the characters of HTML escaped, marked safe; safe text stays as it is.
Value escaped(Machine& machine, const Value& value);
// Fails if the value is Undefined.
void want_defined(const Value& value);
// text % values, for plain text: %s, %r, %d, %i, %%, and with flags, width and precision %f and %x too.
std::string printf_style(Machine& machine, const std::string& text, const Value& values);
// str.replace and str.center. `limit` negative: all.
std::string replaced(Machine& machine, const std::string& text, const std::string& from,
                     const std::string& to, std::int64_t limit);
std::string centered(Machine& machine, const std::string& text, std::int64_t width, const std::string& fill);

}  // namespace plait::jinja
