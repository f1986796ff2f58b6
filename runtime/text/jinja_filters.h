// Jinja's filters and tests, and transformers' tojson.
#pragma once

#include <string>

#include "runtime/text/jinja_machine.h"

namespace plait::jinja {

// value|name(arguments). Throws Error for a filter this interpreter does not have.
Value apply_filter(Machine& machine, const std::string& name, const Value& value, const Arguments& arguments);
// value is name(arguments).
bool apply_test(Machine& machine, const std::string& name, const Value& value, const Arguments& arguments);
bool has_filter(const std::string& name);
bool has_test(const std::string& name);

// value|tojson(..): json.dumps with ensure_ascii off unless asked for.
Value to_json(Machine& machine, const Value& value, const Arguments& arguments);

}  // namespace plait::jinja
