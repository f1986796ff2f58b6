#include "runtime/text/jinja_functions.h"

#include <array>
#include <ctime>

#include "runtime/base/error.h"
#include "runtime/text/jinja.h"
#include "runtime/text/jinja_operators.h"
#include "runtime/text/python_text.h"

namespace plait::jinja {
namespace {

constexpr std::int64_t kMaxRange = 100'000;  // as in Jinja's sandbox
constexpr std::size_t kMaxDateFormat = 256;

class Function final : public Callable {
 public:
  using Body = Value (*)(Machine&, const Arguments&);
  Function(std::string name, Body body) : name_(std::move(name)), body_(body) {}
  std::string name() const override { return name_; }
  Value call(Machine& machine, const Arguments& arguments) const override {
    if (!body_) fail("the function '", name_, "' is not interpreted");
    return body_(machine, arguments);
  }

 private:
  std::string name_;
  Body body_;
};

Value range(Machine&, const Arguments& arguments) {
  const auto given = arguments.bind("range", {"/start", "/stop", "/step"}, 1);
  const auto number = [&](std::size_t i, std::int64_t fallback) {
    return given[i] ? integer_argument(*given[i], "an argument of 'range'") : fallback;
  };
  Range range{given[1] ? number(0, 0) : 0, given[1] ? number(1, 0) : number(0, 0), number(2, 1)};
  if (range.step == 0) fail("the step of 'range' is zero");
  if (const std::int64_t count = range.count(); count < 0 || count > kMaxRange)
    fail("a range of ", count, " numbers is longer than ", kMaxRange);
  return Value::of(range);
}

// dict(other, name=value, ..): other is a dict or yields pairs.
Dictionary entries_of(Machine& machine, const std::string& function, const Arguments& arguments) {
  if (arguments.positional.size() > 1)
    fail("'", function, "' takes at most 1 argument without a name, not ", arguments.positional.size());
  Dictionary entries;
  const auto set = [&](const Value& key, const Value& value) {
    machine.make(4 * sizeof(Value));
    entries.set(machine, key, value);
  };
  for (const Value& other : arguments.positional) {
    want_defined(other);
    if (const auto* dict = other.as<Dict>()) {
      for (const auto& [key, value] : dict->of->items()) set(key, value);
      continue;
    }
    const auto walk = iterate(other);
    while (const auto pair = walk->next(machine)) {
      const Values* both = pair->items();
      if (!both || both->size() != 2) fail("'", function, "' is given something that is no pair");
      set((*both)[0], (*both)[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) set(name, value);
  return entries;
}

Value make_dict(Machine& machine, const Arguments& arguments) {
  return dict(entries_of(machine, "dict", arguments));
}

Value make_namespace(Machine& machine, const Arguments& arguments) {
  auto made = std::make_shared<Namespace>();
  made->attributes = entries_of(machine, "namespace", arguments);
  for (const auto& [name, value] : made->attributes.items())
    if (name.text() && name.text()->starts_with('_')) fail("a namespace cannot hold '", *name.text(), "'");
  machine.make(sizeof(Namespace));
  machine.keep(made);
  return Value::of(std::move(made));
}

Value raise_exception(Machine& machine, const Arguments& arguments) {
  throw Raised(str(machine, *arguments.bind("raise_exception", {"message"}, 1)[0]));
}

Value strftime_now(Machine& machine, const Arguments& arguments) {
  const Value given = *arguments.bind("strftime_now", {"format"}, 1)[0];
  std::string format = text_argument(given, "the format of 'strftime_now'");
  if (format.size() > kMaxDateFormat) fail("the format of 'strftime_now' has ", format.size(), " bytes");
  if (format.find("%f") != std::string::npos) fail("'%f' in the format of 'strftime_now' is not interpreted");
  for (const char* zone : {"%z", "%Z"})
    format = python::replace(format, zone, "", -1);  // a time without zone
  const std::time_t now = machine.now();
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 16 * kMaxDateFormat> text;
  const std::size_t size = std::strftime(text.data(), text.size(), format.c_str(), &local);
  return std::string(text.data(), size);
}

}  // namespace

std::vector<std::pair<std::string, Value>> global_functions() {
  constexpr std::pair<const char*, Function::Body> kFunctions[] = {{"range", range},
                                                                   {"dict", make_dict},
                                                                   {"namespace", make_namespace},
                                                                   {"raise_exception", raise_exception},
                                                                   {"strftime_now", strftime_now},
                                                                   {"lipsum", nullptr},
                                                                   {"cycler", nullptr},
                                                                   {"joiner", nullptr}};
  std::vector<std::pair<std::string, Value>> all;
  for (const auto& [name, body] : kFunctions)
    all.emplace_back(name,
                     Value::of<std::shared_ptr<const Callable>>(std::make_shared<Function>(name, body)));
  return all;
}

}  // namespace plait::jinja
