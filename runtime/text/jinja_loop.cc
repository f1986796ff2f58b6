#include "runtime/text/jinja_loop.h"

#include "runtime/base/error.h"

namespace plait::jinja {
namespace {

// What a walk has left, after it was walked for its length.
class Rest final : public Iterator {
 public:
  Rest(int depth, Values items) : Iterator(depth), items_(std::move(items)) {}
  std::optional<Value> next(Machine& machine) override {
    machine.step();
    if (at_ == items_.size()) return std::nullopt;
    return items_[at_++];
  }

 private:
  Values items_;
  std::size_t at_ = 0;
};

// loop.cycle and loop.changed.
class LoopMethod final : public Callable {
 public:
  LoopMethod(std::shared_ptr<Loop> loop, std::string name) : loop_(std::move(loop)), name_(std::move(name)) {}
  std::string name() const override { return name_; }
  Value call(Machine& machine, const Arguments& arguments) const override {
    const Values& given = arguments.positional;
    if (!arguments.named.empty()) fail("'", name_, "' takes no named arguments");
    if (name_ == "changed") return loop_->changed(machine, given);
    if (given.empty()) fail("'cycle' is given nothing to cycle through");
    return given[static_cast<std::size_t>(loop_->index0()) % given.size()];
  }
  int depth() const override { return loop_->depth() + 1; }

 private:
  std::shared_ptr<Loop> loop_;
  std::string name_;
};

}  // namespace

std::optional<Value> Loop::advance(Machine& machine) {
  std::optional<Value> one = after_ ? std::exchange(after_, std::nullopt) : walk_->next(machine);
  if (!one) return std::nullopt;
  ++index0_;
  before_ = std::exchange(current_, one);
  return one;
}

std::int64_t Loop::length(Machine& machine) {
  if (length_) return *length_;
  length_ = iterable_.is<None>() ? std::nullopt : jinja::length(machine, iterable_);
  if (length_) return *length_;
  Values rest;
  while (auto one = walk_->next(machine)) {
    machine.make(sizeof(Value));
    rest.push_back(std::move(*one));
  }
  length_ = static_cast<std::int64_t>(rest.size()) + index0_ + 1 + (after_ ? 1 : 0);
  walk_ = std::make_shared<Rest>(walk_->depth(), std::move(rest));
  return *length_;
}

std::optional<Value> Loop::next_item(Machine& machine) {
  if (!after_) after_ = walk_->next(machine);
  return after_;
}

Value Loop::previous_item() const { return index0_ == 0 ? undefined("there is no previous item") : *before_; }

bool Loop::changed(Machine& machine, const Values& values) {
  const bool same = seen_ && equal(machine, tuple(*seen_), tuple(values));
  seen_ = values;
  return !same;
}

void Loop::release() {
  iterable_ = Value();
  walk_.reset();
  before_ = current_ = after_ = std::nullopt;
  seen_.reset();
}

std::optional<Value> loop_attribute(Machine& machine, const std::shared_ptr<Loop>& loop,
                                    std::string_view name) {
  const std::int64_t index0 = loop->index0();
  if (name == "index") return index0 + 1;
  if (name == "index0") return index0;
  if (name == "first") return index0 == 0;
  if (name == "last") return !loop->next_item(machine);
  if (name == "length") return loop->length(machine);
  if (name == "revindex") return loop->length(machine) - index0;
  if (name == "revindex0") return loop->length(machine) - index0 - 1;
  if (name == "depth") return 1;
  if (name == "depth0") return 0;
  if (name == "previtem") return loop->previous_item();
  if (name == "nextitem") return loop->next_item(machine).value_or(undefined("there is no next item"));
  if (name == "cycle" || name == "changed")
    return Value::of<std::shared_ptr<const Callable>>(std::make_shared<LoopMethod>(loop, std::string(name)));
  return std::nullopt;
}

std::string loop_shown(Loop& loop, Machine& machine) {
  return cat("<LoopContext ", loop.index0() + 1, "/", loop.length(machine), ">");
}
std::int64_t loop_length(Loop& loop, Machine& machine) { return loop.length(machine); }
int loop_depth(const Loop& loop) { return loop.depth(); }
void loop_release(Loop& loop) { loop.release(); }

}  // namespace plait::jinja
