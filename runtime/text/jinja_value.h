// Values of a template: what Python objects a chat template can get hold of. Everything but a namespace is
// immutable once made, as it is in the sandbox transformers renders with.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace plait::jinja {

class Machine;
class Value;
class Dictionary;
class Iterator;
class Callable;
class Namespace;
class Loop;
using Values = std::vector<Value>;

// Values within values are at most this deep, so that walking and destroying them needs little stack.
constexpr int kMaxDepth = 200;

// A name without a value; using it (but not printing it, testing it or walking it) is an error, this message.
struct Undefined {
  std::shared_ptr<const std::string> message;
};
struct None {};
// Text marked safe (markupsafe.Markup) escapes what is added to it.
enum class Markup { no, yes };
struct Text {
  std::shared_ptr<const std::string> bytes;
  Markup markup;
};
struct Sequence {
  Values items;
  int depth;
};
struct List {
  std::shared_ptr<const Sequence> of;
};
struct Tuple {
  std::shared_ptr<const Sequence> of;
};
struct Dict {
  std::shared_ptr<const Dictionary> of;
};
struct View {  // of a dict's keys, values or items
  const char* name;
  std::shared_ptr<const Sequence> of;
};
struct Range {
  std::int64_t start, stop, step;
  std::int64_t count() const;
};
struct Generator {  // yields each item once; `made_by` names the filter for messages
  std::shared_ptr<Iterator> of;
  const char* made_by;
};

class Value {
 public:
  using Kinds = std::variant<Undefined, None, bool, std::int64_t, double, Text, List, Tuple, Dict, View,
                             Range, Generator, std::shared_ptr<const Callable>, std::shared_ptr<Namespace>,
                             std::shared_ptr<Loop>>;

  Value() : kinds_(None{}) {}
  Value(bool value) : kinds_(value) {}
  Value(int value) : kinds_(std::int64_t{value}) {}
  Value(std::int64_t value) : kinds_(value) {}
  Value(double value) : kinds_(value) {}
  Value(std::string text, Markup markup = Markup::no)
      : kinds_(Text{std::make_shared<const std::string>(std::move(text)), markup}) {}
  Value(const char* text) : Value(std::string(text)) {}
  // Kinds made by the functions below.
  template <class Kind>
  static Value of(Kind kind) {
    Value value;
    value.kinds_ = std::move(kind);
    return value;
  }
  // Nullptr unless the value is of this kind.
  template <class Kind>
  const Kind* as() const {
    return std::get_if<Kind>(&kinds_);
  }
  template <class Kind>
  bool is() const {
    return std::holds_alternative<Kind>(kinds_);
  }
  const std::string* text() const { return is<Text>() ? as<Text>()->bytes.get() : nullptr; }
  const Values* items() const;  // of a list or tuple
  const Kinds& kinds() const { return kinds_; }
  int depth() const;

 private:
  Kinds kinds_;
};

Value undefined(std::string message);
// Throw Error when the values are nested too deep.
Value list(Values items);
Value tuple(Values items);
Value view(const char* name, Values items);

// Keys keep the order in which they came; a key given again changes the value in its old place.
class Dictionary {
 public:
  void set(Machine& machine, Value key,
           Value value);  // throws Error if the key cannot be one (a list, a dict)
  const Value* find(Machine& machine, const Value& key) const;
  const std::vector<std::pair<Value, Value>>& items() const { return items_; }
  std::size_t size() const { return items_.size(); }
  int depth() const { return depth_; }

 private:
  std::vector<std::pair<Value, Value>> items_;
  std::unordered_multimap<std::size_t, std::size_t> places_;  // hash: index
  int depth_ = 1;
};
Value dict(Dictionary entries);

// Next item, nothing at the end. Depth counts what it walks, like a container's.
class Iterator {
 public:
  explicit Iterator(int depth);  // throws Error when too deep
  virtual ~Iterator() = default;
  virtual std::optional<Value> next(Machine& machine) = 0;
  int depth() const { return depth_; }

 private:
  int depth_;
};

// What a call passes.
struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;

  // One value per name, in order; nothing for those not given. A name starting with '/' is passed by position
  // only. Throws Error naming `function` if there are too many, unknown or repeated ones, or fewer than
  // `required`.
  using Bound = std::vector<std::optional<Value>>;
  Bound bind(const std::string& function, std::initializer_list<const char*> names,
             std::size_t required) const;
};

class Callable {
 public:
  virtual ~Callable() = default;
  virtual std::string name() const = 0;
  virtual std::string shown() const;  // as str() shows it; throws Error where Python would show an address
  virtual Value call(Machine& machine, const Arguments& arguments) const = 0;
  virtual int depth() const { return 1; }
};

// The one thing a template can change.
class Namespace {
 public:
  Dictionary attributes;
};

bool truth(const Value& value);
// Python's name of the type: "str", "list", ..
std::string type_name(const Value& value);
std::string str(Machine& machine, const Value& value);
std::string repr(Machine& machine, const Value& value);
// Throws Error where Python does (an unhashable value).
std::size_t hash(Machine& machine, const Value& value);
bool equal(Machine& machine, const Value& a, const Value& b);
// Throws Error if Python has no order between the two. Unordered if a NaN is involved.
std::partial_ordering compare(Machine& machine, const Value& a, const Value& b);

// len(); nothing if there is none.
std::optional<std::int64_t> length(Machine& machine, const Value& value);
bool is_iterable(const Value& value);
// Throws Error if it is not iterable.
std::shared_ptr<Iterator> iterate(const Value& value);
// `x in container`.
bool contains(Machine& machine, const Value& container, const Value& x);

// Attribute `name` of a loop ("index", "last", ..); nothing if there is none.
std::optional<Value> loop_attribute(Machine& machine, const std::shared_ptr<Loop>& loop,
                                    std::string_view name);
std::string loop_shown(Loop& loop, Machine& machine);
std::int64_t loop_length(Loop& loop, Machine& machine);
int loop_depth(const Loop& loop);
void loop_release(Loop& loop);  // it holds no values any more

}  // namespace plait::jinja
