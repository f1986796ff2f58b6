#include "runtime/text/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/text/jinja_machine.h"
#include "runtime/text/python_text.h"

namespace plait::jinja {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

int checked_depth(int depth) {
  if (depth > kMaxDepth) fail("values are nested more than ", kMaxDepth, " deep");
  return depth;
}

std::shared_ptr<const Sequence> sequence(Values items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return std::make_shared<const Sequence>(Sequence{std::move(items), checked_depth(depth + 1)});
}

// A bool counts as 0 or 1, as in Python.
std::optional<std::int64_t> integer_of(const Value& value) {
  if (const auto* flag = value.as<bool>()) return *flag ? 1 : 0;
  if (const auto* integer = value.as<std::int64_t>()) return *integer;
  return std::nullopt;
}

// Wide enough for every integer and every double, so that mixed comparisons are exact as in Python.
std::optional<long double> number_of(const Value& value) {
  static_assert(std::numeric_limits<long double>::digits >= 64);
  if (const auto integer = integer_of(value)) return static_cast<long double>(*integer);
  if (const auto* real = value.as<double>()) return static_cast<long double>(*real);
  return std::nullopt;
}

class Items final : public Iterator {
 public:
  explicit Items(std::shared_ptr<const Sequence> of) : Iterator(of->depth), of_(std::move(of)) {}
  std::optional<Value> next(Machine& machine) override {
    machine.step();
    if (at_ == of_->items.size()) return std::nullopt;
    return of_->items[at_++];
  }

 private:
  std::shared_ptr<const Sequence> of_;
  std::size_t at_ = 0;
};

class Keys final : public Iterator {
 public:
  explicit Keys(std::shared_ptr<const Dictionary> of) : Iterator(of->depth()), of_(std::move(of)) {}
  std::optional<Value> next(Machine& machine) override {
    machine.step();
    if (at_ == of_->size()) return std::nullopt;
    return of_->items()[at_++].first;
  }

 private:
  std::shared_ptr<const Dictionary> of_;
  std::size_t at_ = 0;
};

class Characters final : public Iterator {
 public:
  explicit Characters(const std::string& text) : Iterator(1), all_(python::wide(text)) {}
  std::optional<Value> next(Machine& machine) override {
    machine.step();
    if (at_ == all_.size()) return std::nullopt;
    return Value(python::narrow(std::u32string_view(all_).substr(at_++, 1)));
  }

 private:
  std::u32string all_;
  std::size_t at_ = 0;
};

class Numbers final : public Iterator {
 public:
  explicit Numbers(const Range& range) : Iterator(1), range_(range), left_(range.count()) {}
  std::optional<Value> next(Machine& machine) override {
    machine.step();
    if (left_ == 0) return std::nullopt;
    --left_;
    const Value value(range_.start);
    if (left_ > 0) range_.start += range_.step;
    return value;
  }

 private:
  Range range_;
  std::int64_t left_;
};

class Nothing final : public Iterator {
 public:
  Nothing() : Iterator(1) {}
  std::optional<Value> next(Machine&) override { return std::nullopt; }
};

void show(Machine& machine, std::string& out, const Value& value);

void add(Machine& machine, std::string& out, std::string_view piece) {
  machine.make(piece.size());
  out += piece;
}

void show_items(Machine& machine, std::string& out, const Values& items) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) add(machine, out, ", ");
    show(machine, out, items[i]);
  }
}

void show_entries(Machine& machine, std::string& out, const Dictionary& entries) {
  add(machine, out, "{");
  bool first = true;
  for (const auto& [key, value] : entries.items()) {
    if (!std::exchange(first, false)) add(machine, out, ", ");
    show(machine, out, key);
    add(machine, out, ": ");
    show(machine, out, value);
  }
  add(machine, out, "}");
}

std::string shown_range(const Range& range) {
  return cat("range(", range.start, ", ", range.stop, range.step == 1 ? "" : cat(", ", range.step), ")");
}

void show_text(Machine& machine, std::string& out, const Text& text) {
  const std::string quoted = python::repr(*text.bytes);
  add(machine, out, text.markup == Markup::yes ? "Markup(" + quoted + ")" : quoted);
}

void show_sequence(Machine& machine, std::string& out, const char* open, const Values& items,
                   const char* close) {
  add(machine, out, open);
  show_items(machine, out, items);
  add(machine, out, close);
}

// Appends repr(value).
void show(Machine& machine, std::string& out, const Value& value) {
  const Machine::Nested nested(machine);
  std::visit(
      Overloaded{
          [&](const Undefined&) { add(machine, out, "Undefined"); }, [&](None) { add(machine, out, "None"); },
          [&](bool flag) { add(machine, out, flag ? "True" : "False"); },
          [&](std::int64_t integer) { add(machine, out, std::to_string(integer)); },
          [&](double real) { add(machine, out, python::repr(real)); },
          [&](const Text& text) { show_text(machine, out, text); },
          [&](const List& list) { show_sequence(machine, out, "[", list.of->items, "]"); },
          [&](const Tuple& tuple) {
            show_sequence(machine, out, "(", tuple.of->items, tuple.of->items.size() == 1 ? ",)" : ")");
          },
          [&](const Dict& dict) { show_entries(machine, out, *dict.of); },
          [&](const View& view) {
            show_sequence(machine, out, cat(view.name, "([").c_str(), view.of->items, "])");
          },
          [&](const Range& range) { add(machine, out, shown_range(range)); },
          [&](const Generator& generator) {
            fail("what the filter '", generator.made_by, "' yields is printed without the filter 'list'");
          },
          [&](const std::shared_ptr<const Callable>& callable) { add(machine, out, callable->shown()); },
          [&](const std::shared_ptr<Namespace>& space) {
            add(machine, out, "<Namespace ");
            show_entries(machine, out, space->attributes);
            add(machine, out, ">");
          },
          [&](const std::shared_ptr<Loop>& loop) { add(machine, out, loop_shown(*loop, machine)); }},
      value.kinds());
}

bool equal_items(Machine& machine, const Values& a, const Values& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!equal(machine, a[i], b[i])) return false;
  return true;
}

bool equal_entries(Machine& machine, const Dictionary& a, const Dictionary& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.items()) {
    const Value* other = b.find(machine, key);
    if (!other || !equal(machine, value, *other)) return false;
  }
  return true;
}

bool equal_ranges(const Range& a, const Range& b) {
  const std::int64_t count = a.count();
  return count == b.count() && (count == 0 || (a.start == b.start && (count == 1 || a.step == b.step)));
}

std::partial_ordering compare_items(Machine& machine, const Values& a, const Values& b) {
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (!equal(machine, a[i], b[i])) return compare(machine, a[i], b[i]);
  return a.size() <=> b.size();
}

std::size_t mixed(std::size_t seed, std::size_t more) {
  return (seed ^ more) * 0x9e3779b97f4a7c15ull + (seed >> 7);
}

bool contains_text(Machine& machine, const std::string& whole, const Value& x) {
  const std::string* part = x.text();
  if (!part) fail("'in' looks for ", type_name(x), " in text; it must be text");
  machine.step(1 + whole.size() / 16);
  return whole.find(*part) != std::string::npos;
}

bool contains_number(const Range& range, const Value& x) {
  const auto number = number_of(x);
  if (!number || range.count() == 0) return false;
  const auto last = static_cast<long double>(range.start) +
                    static_cast<long double>(range.step) * static_cast<long double>(range.count() - 1);
  const auto low = std::min(static_cast<long double>(range.start), last);
  const auto high = std::max(static_cast<long double>(range.start), last);
  return low <= *number && *number <= high &&
         std::fmod(*number - static_cast<long double>(range.start), static_cast<long double>(range.step)) ==
             0;
}

}  // namespace

std::int64_t Range::count() const {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  const auto distance = step > 0 ? static_cast<std::uint64_t>(stop) - static_cast<std::uint64_t>(start)
                                 : static_cast<std::uint64_t>(start) - static_cast<std::uint64_t>(stop);
  const auto size =
      step > 0 ? static_cast<std::uint64_t>(step) : std::uint64_t{0} - static_cast<std::uint64_t>(step);
  return static_cast<std::int64_t>((distance - 1) / size + 1);
}

const Values* Value::items() const {
  if (const auto* list = as<List>()) return &list->of->items;
  if (const auto* tuple = as<Tuple>()) return &tuple->of->items;
  return nullptr;
}

int Value::depth() const {
  return std::visit(
      Overloaded{
          [](const List& list) { return list.of->depth; }, [](const Tuple& tuple) { return tuple.of->depth; },
          [](const Dict& dict) { return dict.of->depth(); }, [](const View& view) { return view.of->depth; },
          [](const Generator& generator) { return generator.of->depth(); },
          [](const std::shared_ptr<const Callable>& callable) { return callable->depth(); },
          [](const std::shared_ptr<Loop>& loop) { return loop_depth(*loop); }, [](const auto&) { return 1; }},
      kinds_);
}

Value undefined(std::string message) {
  return Value::of(Undefined{std::make_shared<const std::string>(std::move(message))});
}
Value list(Values items) { return Value::of(List{sequence(std::move(items))}); }
Value tuple(Values items) { return Value::of(Tuple{sequence(std::move(items))}); }
Value view(const char* name, Values items) { return Value::of(View{name, sequence(std::move(items))}); }
Value dict(Dictionary entries) {
  return Value::of(Dict{std::make_shared<const Dictionary>(std::move(entries))});
}

const Value* Dictionary::find(Machine& machine, const Value& key) const {
  const auto [first, last] = places_.equal_range(hash(machine, key));
  for (auto place = first; place != last; ++place)
    if (equal(machine, items_[place->second].first, key)) return &items_[place->second].second;
  return nullptr;
}

void Dictionary::set(Machine& machine, Value key, Value value) {
  depth_ = checked_depth(std::max({depth_, key.depth() + 1, value.depth() + 1}));
  if (const Value* old = find(machine, key)) {
    const_cast<Value&>(*old) = std::move(value);
    return;
  }
  places_.emplace(hash(machine, key), items_.size());
  items_.emplace_back(std::move(key), std::move(value));
}

Iterator::Iterator(int depth) : depth_(checked_depth(depth)) {}

Arguments::Bound Arguments::bind(const std::string& function, std::initializer_list<const char*> names,
                                 std::size_t required) const {
  const std::vector<std::string_view> list(names.begin(), names.end());
  if (positional.size() > list.size())
    fail("'", function, "' takes at most ", list.size(), " arguments, not ", positional.size());
  Bound bound(list.size());
  std::copy(positional.begin(), positional.end(), bound.begin());
  for (const auto& [name, value] : named) {
    const auto at = std::find(list.begin(), list.end(), name);
    if (at == list.end()) fail("'", function, "' takes no argument named '", name, "'");
    auto& place = bound[static_cast<std::size_t>(at - list.begin())];
    if (place) fail("'", function, "' is given its argument '", name, "' twice");
    place = value;
  }
  for (std::size_t i = 0; i < required; ++i)
    if (!bound[i])
      fail("'", function, "' wants ", required, " arguments, its argument ", i + 1, " is missing");
  return bound;
}

std::string Callable::shown() const { fail("'", name(), "' is printed without being called"); }

bool truth(const Value& value) {
  return std::visit(
      Overloaded{[](const Undefined&) { return false; }, [](None) { return false; },
                 [](bool flag) { return flag; }, [](std::int64_t integer) { return integer != 0; },
                 [](double real) { return real != 0; }, [](const Text& text) { return !text.bytes->empty(); },
                 [](const List& list) { return !list.of->items.empty(); },
                 [](const Tuple& tuple) { return !tuple.of->items.empty(); },
                 [](const Dict& dict) { return dict.of->size() > 0; },
                 [](const View& view) { return !view.of->items.empty(); },
                 [](const Range& range) { return range.count() > 0; }, [](const auto&) { return true; }},
      value.kinds());
}

std::string type_name(const Value& value) {
  return std::visit(
      Overloaded{[](const Undefined&) { return "Undefined"; }, [](None) { return "None"; },
                 [](bool) { return "bool"; }, [](std::int64_t) { return "int"; },
                 [](double) { return "float"; }, [](const Text&) { return "str"; },
                 [](const List&) { return "list"; }, [](const Tuple&) { return "tuple"; },
                 [](const Dict&) { return "dict"; }, [](const View& view) { return view.name; },
                 [](const Range&) { return "range"; }, [](const Generator&) { return "generator"; },
                 [](const std::shared_ptr<const Callable>&) { return "function"; },
                 [](const std::shared_ptr<Namespace>&) { return "namespace"; },
                 [](const std::shared_ptr<Loop>&) { return "loop"; }},
      value.kinds());
}

std::string str(Machine& machine, const Value& value) {
  if (value.is<Undefined>()) return "";
  if (const std::string* text = value.text()) {
    machine.make(text->size());
    return *text;
  }
  return repr(machine, value);
}

std::string repr(Machine& machine, const Value& value) {
  std::string out;
  show(machine, out, value);
  return out;
}

std::size_t hash(Machine& machine, const Value& value) {
  machine.step();
  if (const auto integer = integer_of(value)) return std::hash<std::int64_t>{}(*integer);
  if (const auto* real = value.as<double>()) {
    if (*real == std::floor(*real) && std::abs(*real) < 0x1p62)
      return std::hash<std::int64_t>{}(static_cast<std::int64_t>(*real));
    return std::hash<double>{}(*real);
  }
  if (const std::string* text = value.text()) {
    machine.step(text->size() / 16);
    return std::hash<std::string>{}(*text);
  }
  if (const auto* tuple = value.as<Tuple>()) {
    std::size_t sum = tuple->of->items.size();
    for (const Value& item : tuple->of->items) sum = mixed(sum, hash(machine, item));
    return sum;
  }
  if (const auto* range = value.as<Range>()) {  // equal ranges have equal numbers
    const std::int64_t count = range->count();
    const std::int64_t first = count > 0 ? range->start : 0, step = count > 1 ? range->step : 0;
    return mixed(mixed(static_cast<std::size_t>(count), static_cast<std::size_t>(first)),
                 static_cast<std::size_t>(step));
  }
  if (value.is<None>()) return 1;
  if (value.is<Undefined>()) return 2;
  if (const auto* callable = value.as<std::shared_ptr<const Callable>>())
    return std::hash<const void*>{}(callable->get());
  if (const auto* space = value.as<std::shared_ptr<Namespace>>())
    return std::hash<const void*>{}(space->get());
  if (const auto* loop = value.as<std::shared_ptr<Loop>>()) return std::hash<const void*>{}(loop->get());
  fail("a value of type ", type_name(value), " cannot be a key");
}

bool equal(Machine& machine, const Value& a, const Value& b) {
  machine.step();
  const auto x = number_of(a), y = number_of(b);
  if (x || y) return x && y && *x == *y;
  if (a.kinds().index() != b.kinds().index()) return false;
  if (const std::string* text = a.text()) {
    machine.step(text->size() / 16);
    return *text == *b.text();
  }
  if (const Values* items = a.items()) return equal_items(machine, *items, *b.items());
  return std::visit(
      Overloaded{
          [&](const Undefined&) { return true; }, [&](None) { return true; },
          [&](const Dict& one) { return equal_entries(machine, *one.of, *b.as<Dict>()->of); },
          [&](const View& one) -> bool { fail(one.name, " is compared, which plait does not interpret"); },
          [&](const Range& one) { return equal_ranges(one, *b.as<Range>()); },
          [&](const Generator& one) { return one.of == b.as<Generator>()->of; },
          [&](const std::shared_ptr<const Callable>& one) {
            return one == *b.as<std::shared_ptr<const Callable>>();
          },
          [&](const std::shared_ptr<Namespace>& one) { return one == *b.as<std::shared_ptr<Namespace>>(); },
          [&](const std::shared_ptr<Loop>& one) { return one == *b.as<std::shared_ptr<Loop>>(); },
          [&](const auto&) { return false; }},
      a.kinds());
}

std::partial_ordering compare(Machine& machine, const Value& a, const Value& b) {
  machine.step();
  for (const Value* value : {&a, &b})
    if (const auto* name = value->as<Undefined>()) fail(*name->message);
  const auto x = number_of(a), y = number_of(b);
  if (x && y) return *x <=> *y;
  if (a.text() && b.text()) {
    machine.step(a.text()->size() / 16);
    return *a.text() <=> *b.text();  // the order of UTF-8 bytes is that of code points
  }
  const bool alike = a.items() && a.kinds().index() == b.kinds().index();
  if (!alike) fail("a value of type ", type_name(a), " has no order with one of type ", type_name(b));
  return compare_items(machine, *a.items(), *b.items());
}

std::optional<std::int64_t> length(Machine& machine, const Value& value) {
  const auto size = [](const auto& items) { return static_cast<std::int64_t>(items.size()); };
  if (const Values* items = value.items()) return size(*items);
  if (const std::string* text = value.text()) {
    machine.step(text->size() / 16);
    return static_cast<std::int64_t>(python::length(*text));
  }
  if (const auto* dict = value.as<Dict>()) return size(*dict->of);
  if (const auto* view = value.as<View>()) return size(view->of->items);
  if (const auto* range = value.as<Range>()) return range->count();
  if (value.is<Undefined>()) return 0;
  if (const auto* loop = value.as<std::shared_ptr<Loop>>()) return loop_length(**loop, machine);
  return std::nullopt;
}

bool is_iterable(const Value& value) {
  return value.items() || value.text() || value.is<Dict>() || value.is<View>() || value.is<Range>() ||
         value.is<Generator>() || value.is<Undefined>() || value.is<std::shared_ptr<Loop>>();
}

std::shared_ptr<Iterator> iterate(const Value& value) {
  if (const auto* list = value.as<List>()) return std::make_shared<Items>(list->of);
  if (const auto* tuple = value.as<Tuple>()) return std::make_shared<Items>(tuple->of);
  if (const auto* view = value.as<View>()) return std::make_shared<Items>(view->of);
  if (const auto* dict = value.as<Dict>()) return std::make_shared<Keys>(dict->of);
  if (const std::string* text = value.text()) return std::make_shared<Characters>(*text);
  if (const auto* range = value.as<Range>()) return std::make_shared<Numbers>(*range);
  if (const auto* generator = value.as<Generator>()) return generator->of;
  if (value.is<Undefined>()) return std::make_shared<Nothing>();
  fail("a value of type ", type_name(value), " cannot be walked item by item");
}

bool contains(Machine& machine, const Value& container, const Value& x) {
  if (const std::string* whole = container.text()) return contains_text(machine, *whole, x);
  if (const auto* dict = container.as<Dict>()) return dict->of->find(machine, x) != nullptr;
  if (const auto* range = container.as<Range>()) return contains_number(*range, x);
  const auto items = iterate(container);
  while (const auto item = items->next(machine))
    if (equal(machine, *item, x)) return true;
  return false;
}

}  // namespace plait::jinja
