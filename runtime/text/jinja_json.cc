// json.dumps, as transformers' filter tojson calls it.
#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/text/jinja_filters.h"
#include "runtime/text/jinja_operators.h"
#include "runtime/text/python_text.h"

namespace plait::jinja {
namespace {

class Writer {
 public:
  Writer(Machine& machine, const Arguments& arguments) : machine_(machine) {
    const auto given = arguments.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
    ascii_ = given[0] && truth(*given[0]);
    if (given[1] && !given[1]->is<None>()) set_indent(*given[1]);
    comma_ = indented_ ? "," : ", ";
    if (given[2] && !given[2]->is<None>()) set_separators(*given[2]);
    sorted_ = given[3] && truth(*given[3]);
  }

  std::string run(const Value& value) {
    write(value, 0);
    return std::move(out_);
  }

 private:
  void set_indent(const Value& indent) {
    indented_ = true;
    if (const std::string* text = indent.text()) {
      indent_ = *text;
      return;
    }
    const std::int64_t width = integer_argument(indent, "the indent of 'tojson'");
    indent_ = *combine(machine_, Operator::multiply, Value(" "), Value(width)).text();
  }

  void set_separators(const Value& separators) {
    const Values* pair = separators.items();
    if (!pair || pair->size() != 2) fail("the separators of 'tojson' are not two texts");
    comma_ = text_argument((*pair)[0], "a separator of 'tojson'");
    colon_ = text_argument((*pair)[1], "a separator of 'tojson'");
  }

  void add(std::string_view piece) {
    machine_.make(piece.size());
    out_ += piece;
  }

  void new_line(int level) {
    if (!indented_) return;
    add("\n");
    for (int i = 0; i < level; ++i) add(indent_);
  }

  static std::string real(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return python::repr(value);
  }

  void escape(std::string& out, char32_t c) const {
    constexpr std::u32string_view kPlain = U"\"\\\n\r\t\f\b", kLetters = U"\"\\nrtfb";
    if (const std::size_t at = kPlain.find(c); at != std::u32string_view::npos) {
      out += '\\';
      python::append(out, kLetters[at]);
    } else if (c >= 0x10000 && ascii_) {  // a pair of surrogates
      out += "\\u" + python::repr_escape(0xD800 + ((c - 0x10000) >> 10)).substr(2);
      out += "\\u" + python::repr_escape(0xDC00 + ((c - 0x10000) & 0x3FF)).substr(2);
    } else if (c < 0x20 || (ascii_ && c >= 0x7F)) {
      const std::string digits = python::repr_escape(c).substr(2);
      out += "\\u" + std::string(4 - digits.size(), '0') + digits;
    } else {
      python::append(out, c);
    }
  }

  void text(const std::string& value) {
    std::string out = "\"";
    for (const char32_t c : python::wide(value)) escape(out, c);
    add(out + "\"");
  }

  static const char* literal(const Value& value) {
    return value.is<None>() ? "null" : *value.as<bool>() ? "true" : "false";
  }

  std::string key(const Value& value) const {
    if (const std::string* name = value.text()) return *name;
    if (value.is<None>() || value.is<bool>()) return literal(value);
    if (const auto* integer = value.as<std::int64_t>()) return std::to_string(*integer);
    if (const auto* number = value.as<double>()) return real(*number);
    fail("'tojson' writes a dict with a key of type ", type_name(value), "; JSON has no such keys");
  }

  void entries(const Dictionary& dictionary, int level) {
    auto all = dictionary.items();
    if (sorted_)
      std::stable_sort(all.begin(), all.end(),
                       [&](const auto& a, const auto& b) { return compare(machine_, a.first, b.first) < 0; });
    if (all.empty()) return add("{}");
    add("{");
    bool first = true;
    for (const auto& [name, value] : all) {
      if (!std::exchange(first, false)) add(comma_);
      new_line(level + 1);
      text(key(name));
      add(colon_);
      write(value, level + 1);
    }
    new_line(level);
    add("}");
  }

  void items(const Values& all, int level) {
    if (all.empty()) return add("[]");
    add("[");
    bool first = true;
    for (const Value& value : all) {
      if (!std::exchange(first, false)) add(comma_);
      new_line(level + 1);
      write(value, level + 1);
    }
    new_line(level);
    add("]");
  }

  void write(const Value& value, int level) {
    const Machine::Nested nested(machine_);
    if (const std::string* plain = value.text()) return text(*plain);
    if (value.is<None>() || value.is<bool>()) return add(literal(value));
    if (const auto* integer = value.as<std::int64_t>()) return add(std::to_string(*integer));
    if (const auto* number = value.as<double>()) return add(real(*number));
    if (const auto* dict = value.as<Dict>()) return entries(*dict->of, level);
    if (const Values* all = value.items()) return items(*all, level);
    fail("'tojson' cannot write a value of type ", type_name(value));
  }

  Machine& machine_;
  bool ascii_ = false, indented_ = false, sorted_ = false;
  std::string indent_, comma_, colon_ = ": ", out_;
};

}  // namespace

Value to_json(Machine& machine, const Value& value, const Arguments& arguments) {
  return Writer(machine, arguments).run(value);
}

}  // namespace plait::jinja
