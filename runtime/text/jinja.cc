#include "runtime/text/jinja.h"

#include <algorithm>

#include "runtime/text/jinja_filters.h"
#include "runtime/text/jinja_functions.h"
#include "runtime/text/jinja_loop.h"
#include "runtime/text/jinja_operators.h"
#include "runtime/text/jinja_syntax.h"
#include "runtime/text/python_text.h"
#include "runtime/text/utf8.h"

namespace plait::jinja {
namespace {

constexpr std::size_t kMaxSource = std::size_t{4} << 20;

using Kind = Expression::Kind;
using Does = Statement::Kind;

// Names of one block; what is not found here is looked for outside.
class Scope {
 public:
  explicit Scope(std::shared_ptr<const Scope> outside) : outside_(std::move(outside)) {}
  void set(const std::string& name, Value value) {
    const auto at =
        std::find_if(values_.begin(), values_.end(), [&](const auto& one) { return one.first == name; });
    if (at == values_.end())
      values_.emplace_back(name, std::move(value));
    else
      at->second = std::move(value);
  }
  const Value* find(const std::string& name) const {
    for (const Scope* scope = this; scope; scope = scope->outside_.get())
      for (const auto& [its_name, value] : scope->values_)
        if (its_name == name) return &value;
    return nullptr;
  }
  void clear() { values_.clear(); }

 private:
  std::shared_ptr<const Scope> outside_;
  std::vector<std::pair<std::string, Value>> values_;
};
using ScopePtr = std::shared_ptr<Scope>;

Value value_of(Machine& machine, const OrderedJson& json, int level = 1) {
  if (level > kMaxDepth) fail("what the template is given is nested more than ", kMaxDepth, " deep");
  machine.make(sizeof(Value));
  switch (json.type()) {
    case OrderedJson::value_t::boolean:
      return json.get<bool>();
    case OrderedJson::value_t::number_integer:
      return json.get<std::int64_t>();
    case OrderedJson::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
        fail("the integer ", json.get<std::uint64_t>(), " does not fit 64 bits");
      return json.get<std::int64_t>();
    case OrderedJson::value_t::number_float:
      return json.get<double>();
    case OrderedJson::value_t::string:
      return to_valid_utf8(json.get_ref<const std::string&>());
    case OrderedJson::value_t::array: {
      Values items;
      for (const OrderedJson& item : json) items.push_back(value_of(machine, item, level + 1));
      return list(std::move(items));
    }
    case OrderedJson::value_t::object: {
      Dictionary entries;
      for (const auto& [key, item] : json.items())
        entries.set(machine, Value(to_valid_utf8(key)), value_of(machine, item, level + 1));
      return dict(std::move(entries));
    }
    default:
      return {};
  }
}

enum class Flow { on, next, leave };  // after a statement: go on, `continue`, `break`

class Renderer {
 public:
  explicit Renderer(Machine& machine) : machine_(machine) {}

  std::string run(const Block& body, const OrderedJson& variables) {
    const auto globals = std::make_shared<Scope>(nullptr);
    for (auto& [name, function] : global_functions()) globals->set(name, std::move(function));
    const auto given = std::make_shared<Scope>(globals);
    for (const auto& [name, value] : variables.items()) given->set(name, value_of(machine_, value));
    return captured([&] { execute(body, std::make_shared<Scope>(given)); });
  }

  Value call_macro(const Statement& macro, const ScopePtr& defined_in, const Arguments& arguments);

 private:
  class Macro;
  class Sifted;

  // What `work` writes.
  template <class Work>
  std::string captured(const Work& work) {
    std::string text;
    std::string* const outside = std::exchange(out_, &text);
    try {
      work();
    } catch (...) {
      out_ = outside;
      throw;
    }
    out_ = outside;
    return text;
  }

  void write(const std::string& text) {
    machine_.make(text.size());
    *out_ += text;
  }

  // ---- statements

  Flow execute(const Block& block, const ScopePtr& scope) {
    const Machine::Nested nested(machine_);
    for (const StatementPtr& statement : block)
      if (const Flow flow = execute(*statement, scope); flow != Flow::on) return flow;
    return Flow::on;
  }

  Flow execute(const Statement& statement, const ScopePtr& scope) {
    machine_.line = statement.line;
    machine_.step();
    switch (statement.kind) {
      case Does::data:
        write(statement.text);
        return Flow::on;
      case Does::output:
        for (const auto& shown : statement.expressions) write(str(machine_, evaluate(*shown, scope)));
        return Flow::on;
      case Does::branch:
        return branch(statement, scope);
      case Does::loop:
        return loop(statement, scope);
      case Does::assign:
        assign(*statement.target, evaluate(*statement.expressions[0], scope), scope);
        return Flow::on;
      case Does::capture:
      case Does::filter:
        return capture(statement, scope);
      case Does::macro:
        define(statement, scope);
        return Flow::on;
      case Does::with:
        return with(statement, scope);
      case Does::generated:
        return execute(statement.blocks[0], std::make_shared<Scope>(scope));
      case Does::leave:
        return Flow::leave;
      case Does::next:
        return Flow::next;
    }
    return Flow::on;
  }

  Flow branch(const Statement& statement, const ScopePtr& scope) {
    for (std::size_t i = 0; i < statement.expressions.size(); ++i)
      if (truth(evaluate(*statement.expressions[i], scope))) return execute(statement.blocks[i], scope);
    return statement.blocks.size() > statement.expressions.size() ? execute(statement.blocks.back(), scope)
                                                                  : Flow::on;
  }

  Flow loop(const Statement& statement, const ScopePtr& scope);

  // Text written by the block, shown through filters or assigned.
  Flow capture(const Statement& statement, const ScopePtr& scope) {
    const auto inside = std::make_shared<Scope>(scope);
    Flow flow = Flow::on;
    const std::string text = captured([&] { flow = execute(statement.blocks[0], inside); });
    if (flow != Flow::on) return flow;
    Value value(text);
    if (statement.expressions[0]) value = filtered(*statement.expressions[0], std::move(value), inside);
    if (statement.kind == Does::capture)
      assign(*statement.target, value, scope);
    else
      write(text_argument(value, "the result of a filter block"));
    return Flow::on;
  }

  Flow with(const Statement& statement, const ScopePtr& scope) {
    const auto inside = std::make_shared<Scope>(scope);
    for (std::size_t i = 0; i < statement.expressions.size(); i += 2)
      assign(*statement.expressions[i], evaluate(*statement.expressions[i + 1], scope), inside);
    return execute(statement.blocks[0], inside);
  }

  void define(const Statement& statement, const ScopePtr& scope);

  void assign(const Expression& target, const Value& value, const ScopePtr& scope) {
    if (target.kind == Kind::name) return scope->set(target.name, value);
    if (target.kind == Kind::attribute) return assign_attribute(target, value, scope);
    const auto walk = iterate(value);
    for (std::size_t i = 0; i < target.of.size(); ++i) {
      const auto one = walk->next(machine_);
      if (!one) fail(target.of.size(), " names are assigned ", i, " values");
      assign(*target.of[i], *one, scope);
    }
    if (walk->next(machine_)) fail(target.of.size(), " names are assigned more values");
  }

  void assign_attribute(const Expression& target, const Value& value, const ScopePtr& scope) {
    const Value owner = evaluate(*target.of[0], scope);
    const auto* space = owner.as<std::shared_ptr<Namespace>>();
    if (!space)
      fail("'", target.of[0]->name, "' is no namespace, so '", target.name, "' of it cannot be assigned");
    if (target.name.starts_with('_')) fail("a namespace cannot hold '", target.name, "'");
    (*space)->attributes.set(machine_, Value(target.name), value);
  }

  // ---- expressions

  Value evaluate(const Expression& e, const ScopePtr& scope) {
    const Machine::Nested nested(machine_);
    machine_.line = e.line;
    switch (e.kind) {
      case Kind::constant:
        return e.constant;
      case Kind::name:
        return named(e.name, *scope);
      case Kind::negate:
        return !truth(evaluate(*e.of[0], scope));
      case Kind::both: {
        Value left = evaluate(*e.of[0], scope);
        return truth(left) ? evaluate(*e.of[1], scope) : left;
      }
      case Kind::either: {
        Value left = evaluate(*e.of[0], scope);
        return truth(left) ? left : evaluate(*e.of[1], scope);
      }
      case Kind::choice:
        return choice(e, scope);
      case Kind::compare:
        return compared(e, scope);
      case Kind::test: {
        const Value value = evaluate(*e.of[0], scope);
        return apply_test(machine_, e.name, value, arguments(e, scope));
      }
      default: {
        Value made = computed(e, scope);
        machine_.make(made);
        return made;
      }
    }
  }

  // Expressions that make new values.
  Value computed(const Expression& e, const ScopePtr& scope) {
    switch (e.kind) {
      case Kind::list:
        return list(all(e.of, scope));
      case Kind::tuple:
        return tuple(all(e.of, scope));
      case Kind::dict:
        return dictionary(e, scope);
      case Kind::attribute:
        return attribute(machine_, evaluate(*e.of[0], scope), e.name);
      case Kind::item: {
        const Value owner = evaluate(*e.of[0], scope);
        return item(machine_, owner, evaluate(*e.of[1], scope));
      }
      case Kind::slice:
        return sliced(e, scope);
      case Kind::call:
        return called(e, scope);
      case Kind::filter:
        return filtered(e, evaluate(*e.of[0], scope), scope);
      case Kind::minus:
        return negative(evaluate(*e.of[0], scope));
      case Kind::plus:
        return positive(evaluate(*e.of[0], scope));
      case Kind::binary: {
        const Value left = evaluate(*e.of[0], scope);
        return combine(machine_, e.operation, left, evaluate(*e.of[1], scope));
      }
      default:
        return concatenated(e, scope);
    }
  }

  Value named(const std::string& name, const Scope& scope) const {
    const Value* found = scope.find(name);
    return found ? *found : undefined("'" + name + "' is undefined");
  }

  Values all(const std::vector<ExpressionPtr>& expressions, const ScopePtr& scope) {
    Values values;
    for (const auto& one : expressions) values.push_back(evaluate(*one, scope));
    return values;
  }

  Value choice(const Expression& e, const ScopePtr& scope) {
    if (truth(evaluate(*e.of[0], scope))) return evaluate(*e.of[1], scope);
    return e.of[2] ? evaluate(*e.of[2], scope) : undefined("an inline if is false and has no else");
  }

  Value compared(const Expression& e, const ScopePtr& scope) {
    Value left = evaluate(*e.of[0], scope);
    for (std::size_t i = 0; i < e.comparisons.size(); ++i) {
      Value right = evaluate(*e.of[i + 1], scope);
      if (!compare(machine_, e.comparisons[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  Value dictionary(const Expression& e, const ScopePtr& scope) {
    Dictionary entries;
    for (std::size_t i = 0; i < e.of.size(); i += 2) {
      Value key = evaluate(*e.of[i], scope);
      entries.set(machine_, std::move(key), evaluate(*e.of[i + 1], scope));
    }
    return dict(std::move(entries));
  }

  Value sliced(const Expression& e, const ScopePtr& scope) {
    const Value owner = evaluate(*e.of[0], scope);
    Value bounds[3];
    for (std::size_t i = 0; i < 3; ++i)
      if (e.of[i + 1]) bounds[i] = evaluate(*e.of[i + 1], scope);
    return slice(machine_, owner, &bounds[0], &bounds[1], &bounds[2]);
  }

  Value concatenated(const Expression& e, const ScopePtr& scope) {
    std::string text;
    for (const Value& value : all(e.of, scope)) text += str(machine_, value);
    return text;
  }

  Value filtered(const Expression& e, Value value, const ScopePtr& scope) {
    if (e.of[0] && e.of[0]->kind == Kind::filter && !innermost(e).of[0])
      value = filtered(*e.of[0], std::move(value), scope);
    const Arguments given = arguments(e, scope);
    machine_.line = e.line;
    return apply_filter(machine_, e.name, value, given);
  }

  // The first filter of a chain.
  static const Expression& innermost(const Expression& e) {
    const Expression* at = &e;
    while (at->of[0] && at->of[0]->kind == Kind::filter) at = at->of[0].get();
    return *at;
  }

  Value called(const Expression& e, const ScopePtr& scope) {
    const Value function = evaluate(*e.of[0], scope);
    const Arguments given = arguments(e, scope);
    machine_.line = e.line;
    want_defined(function);
    const auto* callable = function.as<std::shared_ptr<const Callable>>();
    if (!callable) fail("a value of type ", type_name(function), " is called");
    return (*callable)->call(machine_, given);
  }

  Arguments arguments(const Expression& e, const ScopePtr& scope) {
    const CallSyntax& syntax = e.arguments;
    Arguments given{all(syntax.positional, scope), {}};
    for (const auto& [name, value] : syntax.named) add_named(given, name, evaluate(*value, scope));
    if (syntax.star) {
      const auto walk = iterate(evaluate(*syntax.star, scope));
      while (auto one = walk->next(machine_)) {
        machine_.make(sizeof(Value));
        given.positional.push_back(std::move(*one));
      }
    }
    if (syntax.double_star) add_all_named(given, evaluate(*syntax.double_star, scope));
    return given;
  }

  static void add_named(Arguments& given, const std::string& name, Value value) {
    for (const auto& [other, unused] : given.named)
      if (other == name) fail("the argument '", name, "' is given twice");
    given.named.emplace_back(name, std::move(value));
  }

  void add_all_named(Arguments& given, const Value& more) {
    const auto* dict = more.as<Dict>();
    if (!dict) fail("what follows '**' is of type ", type_name(more), "; it must be a dict");
    machine_.step(dict->of->size() * dict->of->size());
    for (const auto& [name, value] : dict->of->items())
      add_named(given, text_argument(name, "a name behind '**'"), value);
  }

  Machine& machine_;
  std::string* out_ = nullptr;
};

// A macro knows the block it was defined in as long as that runs.
class Renderer::Macro final : public Callable {
 public:
  Macro(Renderer& renderer, const Statement& macro, const ScopePtr& defined_in)
      : renderer_(renderer), macro_(macro), defined_in_(defined_in) {}
  std::string name() const override { return macro_.text; }
  std::string shown() const override { return "<Macro " + python::repr(macro_.text) + ">"; }
  Value call(Machine&, const Arguments& arguments) const override {
    const ScopePtr defined_in = defined_in_.lock();
    if (!defined_in) fail("the macro '", macro_.text, "' is called outside the block that defines it");
    return renderer_.call_macro(macro_, defined_in, arguments);
  }

 private:
  Renderer& renderer_;
  const Statement& macro_;
  std::weak_ptr<Scope> defined_in_;
};

// Items of a walk that pass the `if` of a loop; asked when the loop gets there.
class Renderer::Sifted final : public Iterator {
 public:
  Sifted(Renderer& renderer, const Statement& loop, std::shared_ptr<Iterator> source, ScopePtr scope)
      : Iterator(source->depth() + 1),
        renderer_(renderer),
        loop_(loop),
        source_(std::move(source)),
        scope_(std::move(scope)) {}
  std::optional<Value> next(Machine& machine) override {
    while (auto one = source_->next(machine)) {
      const auto inside = std::make_shared<Scope>(scope_);
      renderer_.assign(*loop_.target, *one, inside);
      if (truth(renderer_.evaluate(*loop_.expressions[1], inside))) return one;
    }
    return std::nullopt;
  }

 private:
  Renderer& renderer_;
  const Statement& loop_;
  std::shared_ptr<Iterator> source_;
  ScopePtr scope_;
};

Flow Renderer::loop(const Statement& statement, const ScopePtr& scope) {
  const Value iterable = evaluate(*statement.expressions[0], scope);
  std::shared_ptr<Iterator> walk = iterate(iterable);
  const bool sifted = statement.expressions[1] != nullptr;
  if (sifted) walk = std::make_shared<Sifted>(*this, statement, std::move(walk), scope);
  const auto loop = std::make_shared<Loop>(sifted ? Value() : iterable, std::move(walk));
  const auto inside = std::make_shared<Scope>(scope);
  bool to_its_end = false;  // some round was; Jinja's `else` also follows rounds that all ended early
  Flow flow = Flow::on;
  while (flow != Flow::leave) {
    const auto one = loop->advance(machine_);
    if (!one) break;
    inside->clear();
    inside->set("loop", Value::of(loop));
    assign(*statement.target, *one, inside);
    flow = execute(statement.blocks[0], inside);
    to_its_end = to_its_end || flow == Flow::on;
  }
  inside->clear();
  if (loop.use_count() > 1) {
    machine_.make(sizeof(Loop));
    machine_.keep(loop);
  }
  if (to_its_end || statement.blocks.size() < 2) return Flow::on;
  return execute(statement.blocks[1], std::make_shared<Scope>(scope));
}

void Renderer::define(const Statement& statement, const ScopePtr& scope) {
  machine_.make(sizeof(Macro));
  scope->set(statement.text,
             Value::of<std::shared_ptr<const Callable>>(std::make_shared<Macro>(*this, statement, scope)));
}

Value Renderer::call_macro(const Statement& macro, const ScopePtr& defined_in, const Arguments& arguments) {
  const auto inside = std::make_shared<Scope>(defined_in);
  auto named = arguments.named;
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    const auto at = std::find_if(named.begin(), named.end(),
                                 [&](const auto& one) { return one.first == parameter.name; });
    if (i < arguments.positional.size()) {
      inside->set(parameter.name, arguments.positional[i]);
    } else if (at != named.end()) {
      inside->set(parameter.name, at->second);
      named.erase(at);
    } else {
      inside->set(parameter.name, parameter.fallback
                                      ? evaluate(*parameter.fallback, inside)
                                      : undefined("parameter '" + parameter.name + "' was not provided"));
    }
  }
  const std::size_t taken = std::min(macro.parameters.size(), arguments.positional.size());
  const Values rest(arguments.positional.begin() + static_cast<std::ptrdiff_t>(taken),
                    arguments.positional.end());
  if (!rest.empty() && !macro.takes_more_arguments)
    fail("the macro '", macro.text, "' takes at most ", macro.parameters.size(), " arguments, not ",
         arguments.positional.size());
  if (!named.empty() && !macro.takes_more_names)
    fail("the macro '", macro.text, "' takes no argument named '", named.front().first, "'");
  if (macro.takes_more_arguments) inside->set("varargs", tuple(rest));
  if (macro.takes_more_names) {
    Dictionary entries;
    for (const auto& [name, value] : named) entries.set(machine_, Value(name), value);
    inside->set("kwargs", dict(std::move(entries)));
  }
  return captured([&] { execute(macro.blocks[0], inside); });
}

}  // namespace

Template::Template(std::string_view source, std::string origin) : origin_(std::move(origin)) {
  if (source.size() > kMaxSource)
    fail(origin_, ": the template has ", source.size(), " bytes, at most ", kMaxSource, " are read");
  if (to_valid_utf8(source) != source) fail(origin_, ": the template is not valid UTF-8");
  try {
    body_ = parse_template(source);
  } catch (const Error& error) {
    fail(origin_, ": ", error.what());
  }
}

Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

std::string Template::render(const OrderedJson& variables, std::time_t now) const {
  Machine machine(now);
  try {
    return Renderer(machine).run(body_, variables);
  } catch (const Raised&) {
    throw;
  } catch (const Error& error) {
    fail(origin_, ": line ", machine.line, ": ", error.what());
  }
}

}  // namespace plait::jinja
