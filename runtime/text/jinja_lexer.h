// Template text to tokens, as Jinja 3.1 splits it with trim_blocks and lstrip_blocks on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/text/jinja_value.h"

namespace plait::jinja {

struct Token {
  enum class Kind {
    data,  // text between tags
    statement_begin,
    statement_end,
    output_begin,
    output_end,
    name,
    text,
    number,
    symbol,  // an operator or bracket
    end,     // of the template
  };
  Kind kind;
  int line;
  std::string text;  // of data, names, symbols
  Value value;       // of text and number literals
};

// `source` is well-formed UTF-8. Throws Error naming the line: an unclosed tag, an unknown character, an
// unbalanced bracket, a number or escape that cannot be kept.
std::vector<Token> split_template(std::string_view source);

}  // namespace plait::jinja
