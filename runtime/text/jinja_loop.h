// A `for` loop under way: what its variable `loop` is.
#pragma once

#include "runtime/text/jinja_machine.h"

namespace plait::jinja {

class Loop {
 public:
  // `iterable` is what `walk` walks, for its length; None if that must be found by walking.
  Loop(Value iterable, std::shared_ptr<Iterator> walk)
      : iterable_(std::move(iterable)), walk_(std::move(walk)) {}

  // Takes the next item; nothing at the end.
  std::optional<Value> advance(Machine& machine);

  std::int64_t index0() const { return index0_; }
  std::int64_t length(Machine& machine);
  std::optional<Value> next_item(Machine& machine);  // looked at, not taken
  Value previous_item() const;
  bool changed(Machine& machine, const Values& values);
  int depth() const { return walk_ ? walk_->depth() + 1 : 1; }
  void release();

 private:
  Value iterable_;
  std::shared_ptr<Iterator> walk_;
  std::int64_t index0_ = -1;
  std::optional<std::int64_t> length_;
  std::optional<Value> before_, current_, after_;
  std::optional<Values> seen_;  // by changed()
};

}  // namespace plait::jinja
