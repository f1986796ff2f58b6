#include "runtime/text/jinja_machine.h"

#include "runtime/base/error.h"

namespace plait::jinja {

// Emptied one by one, so that a chain of them is not destroyed by recursion.
Machine::~Machine() {
  for (const auto& object : namespaces_) object->attributes = Dictionary();
  for (const auto& object : loops_) loop_release(*object);
}

void Machine::step(std::size_t count) {
  steps_ += count;
  if (steps_ > kMaxSteps) fail("the template takes more than ", kMaxSteps, " steps");
}

void Machine::make(std::size_t bytes) {
  if (bytes > kMaxBytes || bytes_ + bytes > kMaxBytes)
    fail("the template makes more than ", kMaxBytes, " bytes of text and values");
  step(1 + bytes / 16);
  bytes_ += bytes;
}

void Machine::make(const Value& value) {
  if (const std::string* text = value.text()) return make(text->size());
  if (const Values* items = value.items()) return make(items->size() * sizeof(Value));
  if (const auto* entries = value.as<Dict>()) return make(entries->of->size() * 4 * sizeof(Value));
}

Machine::Nested::Nested(Machine& machine) : machine_(machine) {
  if (machine.nesting_ >= kMaxNesting)
    fail("the template calls itself more than ", kMaxNesting, " levels deep");
  ++machine.nesting_;
  machine.step();
}

}  // namespace plait::jinja
