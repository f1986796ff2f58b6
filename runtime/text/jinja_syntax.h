// A parsed template.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/text/jinja_value.h"

namespace plait::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct CallSyntax {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr star, double_star;  // of *args and **kwargs; null if there are none
};

enum class Operator { add, subtract, multiply, divide, floor_divide, modulo, power };
enum class Comparison { equal, unequal, less, less_equal, greater, greater_equal, in, not_in };

struct Expression {
  enum class Kind {
    constant,
    name,
    list,
    tuple,
    dict,       // key, value, key, value, ..
    attribute,  // of[0].name
    item,       // of[0][of[1]]
    slice,      // of[0][of[1]:of[2]:of[3]], null where left out
    call,       // of[0](arguments)
    filter,     // of[0]|name(arguments); of[0] is null for the text of a block
    test,       // of[0] is name(arguments)
    negate,     // not of[0]
    minus,
    plus,
    binary,  // of[0] operation of[1]
    concat,
    compare,  // of[0] comparisons[0] of[1] comparisons[1] of[2] ..
    both,     // and
    either,   // or
    choice,   // of[1] if of[0] else of[2], which may be null
  };
  Kind kind;
  int line;
  std::string name = {};
  Value constant = {};
  std::vector<ExpressionPtr> of = {};
  CallSyntax arguments = {};
  Operator operation = Operator::add;
  std::vector<Comparison> comparisons = {};
  int depth = 1;  // levels of the tree below
};

struct Statement;
using StatementPtr = std::unique_ptr<const Statement>;
using Block = std::vector<StatementPtr>;

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // null: none
};

// A target of an assignment is a name, a tuple of targets, or an attribute of a name (a namespace's).
struct Statement {
  enum class Kind {
    data,       // text
    output,     // expressions
    branch,     // if expressions[i] then blocks[i], .., else the last block if there is one more
    loop,       // for target in expressions[0] if expressions[1] (or null): blocks[0], else blocks[1]
    assign,     // target = expressions[0]
    capture,    // target = blocks[0], through the filters expressions[0] (or null)
    macro,      // name(parameters): blocks[0]
    filter,     // blocks[0] through the filters expressions[0]
    with,       // targets expressions[2i] = expressions[2i + 1]: blocks[0]
    generated,  // the assistant's own text: blocks[0]
    leave,      // break
    next,       // continue
  };
  Kind kind;
  int line;
  std::string text = {};  // of data; the name of a macro
  std::vector<ExpressionPtr> expressions = {};
  ExpressionPtr target = {};
  std::vector<Block> blocks = {};
  std::vector<Parameter> parameters = {};
  bool takes_more_arguments = false, takes_more_names = false;  // the macro reads varargs, kwargs
};

// Throws Error naming line and construct for anything that is no Jinja or that this interpreter does not
// know, and for nesting deeper than it allows.
Block parse_template(std::string_view source);

}  // namespace plait::jinja
