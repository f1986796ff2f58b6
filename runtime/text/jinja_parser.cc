#include <algorithm>
#include <array>
#include <initializer_list>

#include "runtime/base/error.h"
#include "runtime/text/jinja_lexer.h"
#include "runtime/text/jinja_syntax.h"

namespace plait::jinja {
namespace {

constexpr int kMaxLevels = 200;  // of expressions and of statements, each

using Kind = Expression::Kind;
using Does = Statement::Kind;

struct BinarySymbol {
  std::string_view symbol;
  Operator operation;
};
constexpr std::array<BinarySymbol, 2> kSums = {{{"+", Operator::add}, {"-", Operator::subtract}}};
constexpr std::array<BinarySymbol, 4> kProducts = {{{"*", Operator::multiply},
                                                    {"/", Operator::divide},
                                                    {"//", Operator::floor_divide},
                                                    {"%", Operator::modulo}}};
constexpr std::array<BinarySymbol, 1> kPowers = {{{"**", Operator::power}}};

struct ComparisonSymbol {
  std::string_view symbol;
  Comparison comparison;
};
constexpr std::array<ComparisonSymbol, 6> kComparisons = {{{"==", Comparison::equal},
                                                           {"!=", Comparison::unequal},
                                                           {"<", Comparison::less},
                                                           {"<=", Comparison::less_equal},
                                                           {">", Comparison::greater},
                                                           {">=", Comparison::greater_equal}}};

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(split_template(source)) {}

  Block run() {
    Block block = statements({});
    return block;
  }

 private:
  using Node = std::unique_ptr<Expression>;

  // ---- tokens

  const Token& token(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  int line() const { return token().line; }

  [[noreturn]] void refuse(const std::string& why, int where) const { fail("line ", where, ": ", why); }
  [[noreturn]] void refuse(const std::string& why) const { refuse(why, line()); }

  std::string shown() const {
    switch (token().kind) {
      case Token::Kind::data:
        return "text";
      case Token::Kind::statement_begin:
        return "'{%'";
      case Token::Kind::statement_end:
        return "'%}'";
      case Token::Kind::output_begin:
        return "'{{'";
      case Token::Kind::output_end:
        return "'}}'";
      case Token::Kind::name:
      case Token::Kind::symbol:
        return "'" + token().text + "'";
      case Token::Kind::text:
        return "a text";
      case Token::Kind::number:
        return "a number";
      case Token::Kind::end:
        return "the end of the template";
    }
    return "";
  }

  bool is_name(std::string_view text, std::size_t ahead = 0) const {
    return token(ahead).kind == Token::Kind::name && token(ahead).text == text;
  }
  bool is_symbol(std::string_view text, std::size_t ahead = 0) const {
    return token(ahead).kind == Token::Kind::symbol && token(ahead).text == text;
  }
  bool take_name(std::string_view text) {
    const bool there = is_name(text);
    if (there) ++at_;
    return there;
  }
  bool take_symbol(std::string_view text) {
    const bool there = is_symbol(text);
    if (there) ++at_;
    return there;
  }
  void want_symbol(std::string_view text) {
    if (!take_symbol(text)) refuse("'" + std::string(text) + "' is expected instead of " + shown());
  }
  void want_name(std::string_view text) {
    if (!take_name(text)) refuse("'" + std::string(text) + "' is expected instead of " + shown());
  }
  void want(Token::Kind kind) {
    if (token().kind == kind) {
      ++at_;
      return;
    }
    refuse(std::string(kind == Token::Kind::output_end ? "'}}'" : "'%}'") + " is expected instead of " +
           shown());
  }
  std::string any_name() {
    if (token().kind != Token::Kind::name) refuse("a name is expected instead of " + shown());
    return tokens_[at_++].text;
  }

  // ---- nodes

  Node node(Kind kind, int where) const {
    auto made = std::make_unique<Expression>();
    made->kind = kind;
    made->line = where;
    return made;
  }

  // Counts the levels of a finished node; trees are walked and destroyed by recursion.
  Node finished(Node made) const {
    const auto below = [&](const ExpressionPtr& child) {
      if (child) made->depth = std::max(made->depth, child->depth + 1);
    };
    for (const auto& child : made->of) below(child);
    for (const auto& child : made->arguments.positional) below(child);
    for (const auto& [name, child] : made->arguments.named) below(child);
    below(made->arguments.star);
    below(made->arguments.double_star);
    if (made->depth > kMaxLevels)
      refuse(cat("an expression has more than ", kMaxLevels, " levels"), made->line);
    return made;
  }

  template <class... Children>
  Node node(Kind kind, int where, Children... children) const {
    Node made = node(kind, where);
    (made->of.push_back(std::move(children)), ...);
    return finished(std::move(made));
  }

  Node constant(Value value, int where) const {
    Node made = node(Kind::constant, where);
    made->constant = std::move(value);
    return made;
  }

  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser.levels_ > kMaxLevels)
        parser.refuse(cat("the template is nested more than ", kMaxLevels, " deep"));
    }
    ~Level() { --parser_.levels_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };

  // ---- expressions, by rising precedence

  Node expression() {
    const Level level(*this);
    const int where = line();
    Node value = either();
    while (take_name("if")) {
      Node test = either();
      Node otherwise = take_name("else") ? expression() : nullptr;
      value = node(Kind::choice, where, std::move(test), std::move(value), std::move(otherwise));
    }
    return value;
  }

  Node either() {
    Node left = both();
    while (is_name("or")) {
      const int where = tokens_[at_++].line;
      Node right = both();
      left = node(Kind::either, where, std::move(left), std::move(right));
    }
    return left;
  }

  Node both() {
    Node left = negation();
    while (is_name("and")) {
      const int where = tokens_[at_++].line;
      Node right = negation();
      left = node(Kind::both, where, std::move(left), std::move(right));
    }
    return left;
  }

  Node negation() {
    if (!is_name("not")) return comparison();
    const Level level(*this);
    const int where = tokens_[at_++].line;
    return node(Kind::negate, where, negation());
  }

  std::optional<Comparison> take_comparison() {
    for (const auto& [symbol, comparison] : kComparisons)
      if (take_symbol(symbol)) return comparison;
    if (take_name("in")) return Comparison::in;
    if (is_name("not") && is_name("in", 1)) {
      at_ += 2;
      return Comparison::not_in;
    }
    return std::nullopt;
  }

  Node comparison() {
    const int where = line();
    Node first = sum();
    std::optional<Comparison> next = take_comparison();
    if (!next) return first;
    Node chain = node(Kind::compare, where);
    chain->of.push_back(std::move(first));
    for (; next; next = take_comparison()) {
      chain->comparisons.push_back(*next);
      chain->of.push_back(sum());
    }
    return finished(std::move(chain));
  }

  // Operands of `operand`, joined from the left by any of these symbols.
  template <std::size_t N>
  Node joined(const std::array<BinarySymbol, N>& symbols, Node (Parser::*operand)()) {
    Node left = (this->*operand)();
    for (;;) {
      const auto found = std::find_if(symbols.begin(), symbols.end(),
                                      [&](const BinarySymbol& one) { return is_symbol(one.symbol); });
      if (found == symbols.end()) return left;
      const int where = tokens_[at_++].line;
      Node right = (this->*operand)();
      left = node(Kind::binary, where, std::move(left), std::move(right));
      left->operation = found->operation;
    }
  }

  Node sum() { return joined(kSums, &Parser::concatenation); }
  Node product() { return joined(kProducts, &Parser::power); }
  Node power() { return joined(kPowers, &Parser::filtered); }

  Node concatenation() {
    const int where = line();
    Node first = product();
    if (!is_symbol("~")) return first;
    Node chain = node(Kind::concat, where);
    chain->of.push_back(std::move(first));
    while (take_symbol("~")) chain->of.push_back(product());
    return finished(std::move(chain));
  }

  Node filtered() { return with_filters(signed_value()); }

  Node signed_value() {
    const int where = line();
    const bool minus = is_symbol("-");
    if (!minus && !is_symbol("+")) return with_postfixes(primary());
    const Level level(*this);
    ++at_;
    return with_postfixes(node(minus ? Kind::minus : Kind::plus, where, signed_value()));
  }

  Node primary() {
    const Token& here = token();
    if (here.kind == Token::Kind::name) return named(tokens_[at_++]);
    if (here.kind == Token::Kind::text) return literal_text();
    if (here.kind == Token::Kind::number) return constant(tokens_[at_++].value, here.line);
    if (take_symbol("(")) {
      Node inner = tuple_or_one({}, Empty::allowed);
      want_symbol(")");
      return inner;
    }
    if (is_symbol("[")) return list_literal();
    if (is_symbol("{")) return dict_literal();
    refuse("an expression is expected instead of " + shown());
  }

  Node named(const Token& name) {
    if (name.text == "true" || name.text == "True") return constant(true, name.line);
    if (name.text == "false" || name.text == "False") return constant(false, name.line);
    if (name.text == "none" || name.text == "None") return constant(Value(), name.line);
    Node made = node(Kind::name, name.line);
    made->name = name.text;
    reads_varargs_ = reads_varargs_ || name.text == "varargs";
    reads_kwargs_ = reads_kwargs_ || name.text == "kwargs";
    return made;
  }

  Node literal_text() {  // neighbours are one text
    const int where = line();
    std::string text;
    while (token().kind == Token::Kind::text) text += *tokens_[at_++].value.text();
    return constant(std::move(text), where);
  }

  Node list_literal() {
    Node made = node(Kind::list, tokens_[at_++].line);
    while (!is_symbol("]")) {
      if (!made->of.empty()) want_symbol(",");
      if (!is_symbol("]")) made->of.push_back(expression());
    }
    ++at_;
    return finished(std::move(made));
  }

  Node dict_literal() {
    Node made = node(Kind::dict, tokens_[at_++].line);
    while (!is_symbol("}")) {
      if (!made->of.empty()) want_symbol(",");
      if (is_symbol("}")) break;
      made->of.push_back(expression());
      want_symbol(":");
      made->of.push_back(expression());
    }
    ++at_;
    return finished(std::move(made));
  }

  enum class Empty { refused, allowed };
  bool tuple_ends(std::string_view end_name) const {
    return token().kind == Token::Kind::output_end || token().kind == Token::Kind::statement_end ||
           is_symbol(")") || (!end_name.empty() && is_name(end_name));
  }

  // Items by `one`, separated by commas; one without a comma is itself.
  template <class One>
  Node tuple_of(std::string_view end_name, Empty empty, const One& one) {
    const int where = line();
    std::vector<ExpressionPtr> items;
    bool comma = false;
    while (!tuple_ends(end_name)) {
      Node item = one();
      if (!comma && !is_symbol(",")) return item;
      items.push_back(std::move(item));
      if (!take_symbol(",")) break;
      comma = true;
    }
    if (items.empty() && empty == Empty::refused) refuse("an expression is expected instead of " + shown());
    Node made = node(Kind::tuple, where);
    made->of = std::move(items);
    return finished(std::move(made));
  }
  Node tuple_or_one(std::string_view end_name, Empty empty = Empty::refused) {
    return tuple_of(end_name, empty, [&] { return expression(); });
  }
  // The same without inline conditions, which `if` and `for` keep for themselves.
  Node plain_tuple_or_one(std::string_view end_name) {
    return tuple_of(end_name, Empty::refused, [&] { return either(); });
  }

  Node with_postfixes(Node value) {
    for (;;) {
      if (is_symbol(".") || is_symbol("["))
        value = subscript(std::move(value));
      else if (is_symbol("("))
        value = call(std::move(value));
      else
        return value;
    }
  }

  Node with_filters(Node value) {
    for (;;) {
      if (is_symbol("|"))
        value = filter(std::move(value));
      else if (is_name("is"))
        value = test(std::move(value));
      else if (is_symbol("("))
        value = call(std::move(value));
      else
        return value;
    }
  }

  Node subscript(Node value) {
    const int where = line();
    if (take_symbol(".")) {
      const Token& name = token();
      if (name.kind == Token::Kind::number && name.value.is<std::int64_t>()) {
        ++at_;
        return node(Kind::item, where, std::move(value), constant(name.value, where));
      }
      Node made = node(Kind::attribute, where);
      made->name = any_name();
      made->of.push_back(std::move(value));
      return finished(std::move(made));
    }
    ++at_;
    Node made =
        is_symbol(":") ? slice(std::move(value), nullptr, where) : index_or_slice(std::move(value), where);
    want_symbol("]");
    return made;
  }

  Node index_or_slice(Node value, int where) {
    Node first = expression();
    if (is_symbol(":")) return slice(std::move(value), std::move(first), where);
    if (!is_symbol(",")) return node(Kind::item, where, std::move(value), std::move(first));
    Node several = node(Kind::tuple, where);
    several->of.push_back(std::move(first));
    while (take_symbol(",") && !is_symbol("]")) several->of.push_back(expression());
    return node(Kind::item, where, std::move(value), finished(std::move(several)));
  }

  Node slice(Node value, Node start, int where) {
    want_symbol(":");
    Node stop = is_symbol(":") || is_symbol("]") ? nullptr : expression();
    Node step = take_symbol(":") && !is_symbol("]") ? expression() : nullptr;
    return node(Kind::slice, where, std::move(value), std::move(start), std::move(stop), std::move(step));
  }

  CallSyntax call_arguments() {
    CallSyntax call;
    want_symbol("(");
    const auto misplaced = [&] { refuse("the arguments of a call are out of order"); };
    for (bool first = true; !is_symbol(")"); first = false) {
      if (!first) want_symbol(",");
      if (is_symbol(")")) break;
      if (take_symbol("*")) {
        if (call.star || call.double_star) misplaced();
        call.star = expression();
      } else if (take_symbol("**")) {
        if (call.double_star) misplaced();
        call.double_star = expression();
      } else if (token().kind == Token::Kind::name && is_symbol("=", 1)) {
        if (call.double_star) misplaced();
        const std::string name = any_name();
        ++at_;
        call.named.emplace_back(name, expression());
      } else {
        if (call.star || call.double_star || !call.named.empty()) misplaced();
        call.positional.push_back(expression());
      }
    }
    ++at_;
    return call;
  }

  Node call(Node function) {
    Node made = node(Kind::call, line());
    made->of.push_back(std::move(function));
    made->arguments = call_arguments();
    return finished(std::move(made));
  }

  std::string dotted_name() {
    std::string name = any_name();
    while (take_symbol(".")) name += cat(".", any_name());
    return name;
  }

  // `value` is null where a block's text is filtered.
  Node filter(Node value) {
    take_symbol("|");
    Node made = node(Kind::filter, line());
    made->name = dotted_name();
    made->of.push_back(std::move(value));
    if (is_symbol("(")) made->arguments = call_arguments();
    return finished(std::move(made));
  }

  // What a test takes as its argument without brackets.
  bool test_argument_begins() const {
    const Token& here = token();
    if (here.kind == Token::Kind::name) return !is_name("else") && !is_name("or") && !is_name("and");
    return here.kind == Token::Kind::text || here.kind == Token::Kind::number || is_symbol("[") ||
           is_symbol("{");
  }

  Node test(Node value) {
    const int where = tokens_[at_++].line;
    const bool negated = take_name("not");
    Node made = node(Kind::test, where);
    made->name = dotted_name();
    made->of.push_back(std::move(value));
    if (is_symbol("(")) {
      made->arguments = call_arguments();
    } else if (test_argument_begins()) {
      if (is_name("is")) refuse("a test follows a test; put the first into brackets");
      made->arguments.positional.push_back(with_postfixes(primary()));
    }
    made = finished(std::move(made));
    return negated ? node(Kind::negate, where, std::move(made)) : std::move(made);
  }

  // ---- statements

  bool at_end_tag(std::initializer_list<std::string_view> ends) const {
    return token().kind == Token::Kind::statement_begin &&
           std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return is_name(end, 1); });
  }

  // Up to the tag that ends the block, of which the name is still to be read; no ends: up to the end of the
  // template.
  Block statements(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    Block block;
    for (;;) {
      if (at_end_tag(ends)) {
        ++at_;
        return block;
      }
      switch (token().kind) {
        case Token::Kind::end:
          if (ends.size() == 0) return block;
          refuse("the template ends where '" + std::string(*(ends.end() - 1)) + "' is due");
        case Token::Kind::data:
          block.push_back(data());
          break;
        case Token::Kind::output_begin:
          block.push_back(output());
          break;
        default:
          ++at_;
          block.push_back(statement());
          want(Token::Kind::statement_end);
      }
    }
  }

  // The block of a statement, from the end of its opening tag to its end tag, whose name is taken.
  Block body(std::initializer_list<std::string_view> ends) {
    take_symbol(":");
    want(Token::Kind::statement_end);
    return statements(ends);
  }
  Block whole_body(std::string_view end) {
    Block block = body({end});
    want_name(end);
    return block;
  }

  std::unique_ptr<Statement> made(Does does, int where) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = does;
    statement->line = where;
    return statement;
  }

  StatementPtr data() {
    auto text = made(Does::data, line());
    text->text = tokens_[at_++].text;
    return text;
  }

  StatementPtr output() {
    auto shown = made(Does::output, tokens_[at_++].line);
    shown->expressions.push_back(tuple_or_one({}));
    want(Token::Kind::output_end);
    return shown;
  }

  StatementPtr statement() {
    const int where = line();
    const std::string tag = any_name();
    if (tag == "if") return branch(where);
    if (tag == "for") return loop(where);
    if (tag == "set") return assignment(where);
    if (tag == "macro") return macro(where);
    if (tag == "filter") return filter_block(where);
    if (tag == "with") return with(where);
    if (tag == "generation") return generated(where);
    if (tag == "print") return print(where);
    if (tag == "break" || tag == "continue") return jump(tag, where);
    refuse("the statement '" + tag + "' is not interpreted", where);
  }

  StatementPtr branch(int where) {
    auto choice = made(Does::branch, where);
    for (;;) {
      choice->expressions.push_back(plain_tuple_or_one({}));
      choice->blocks.push_back(body({"elif", "else", "endif"}));
      if (take_name("elif")) continue;
      if (take_name("else"))
        choice->blocks.push_back(whole_body("endif"));
      else
        ++at_;
      return choice;
    }
  }

  StatementPtr loop(int where) {
    auto walk = made(Does::loop, where);
    walk->target = target("in", Attributes::refused);
    refuse_loop_name(*walk->target);
    want_name("in");
    walk->expressions.push_back(plain_tuple_or_one("recursive"));
    walk->expressions.push_back(take_name("if") ? expression() : nullptr);
    if (is_name("recursive")) refuse("a recursive loop is not interpreted");
    ++loops_;
    walk->blocks.push_back(body({"endfor", "else"}));
    --loops_;
    if (take_name("else"))
      walk->blocks.push_back(whole_body("endfor"));
    else
      ++at_;
    return walk;
  }

  void refuse_loop_name(const Expression& assigned) const {
    if (assigned.kind == Kind::name && assigned.name == "loop")
      refuse("'loop' cannot be assigned to within a loop", assigned.line);
    for (const auto& item : assigned.of) refuse_loop_name(*item);
  }

  StatementPtr assignment(int where) {
    auto set = made(Does::assign, where);
    set->target = target({}, Attributes::allowed);
    if (loops_ > 0) refuse_loop_name(*set->target);
    if (take_symbol("=")) {
      set->expressions.push_back(tuple_or_one({}));
      return set;
    }
    set->kind = Does::capture;
    set->expressions.push_back(is_symbol("|") ? filters(nullptr) : nullptr);
    set->blocks.push_back(whole_body("endset"));
    return set;
  }

  Node filters(Node value) {
    do value = filter(std::move(value));
    while (is_symbol("|"));
    return value;
  }

  StatementPtr macro(int where) {
    auto macro = made(Does::macro, where);
    macro->text = any_name();
    want_symbol("(");
    while (!is_symbol(")")) {
      if (!macro->parameters.empty()) want_symbol(",");
      Parameter parameter{any_name(), nullptr};
      if (take_symbol("="))
        parameter.fallback = expression();
      else if (!macro->parameters.empty() && macro->parameters.back().fallback)
        refuse("the parameter '" + parameter.name + "' without a default follows one with a default");
      macro->parameters.push_back(std::move(parameter));
    }
    ++at_;
    const bool varargs = std::exchange(reads_varargs_, false), kwargs = std::exchange(reads_kwargs_, false);
    const int loops = std::exchange(loops_, 0);
    macro->blocks.push_back(whole_body("endmacro"));
    loops_ = loops;
    macro->takes_more_arguments = reads_varargs_;  // also if only a macro within reads them, as in Jinja
    macro->takes_more_names = reads_kwargs_;
    reads_varargs_ = reads_varargs_ || varargs;
    reads_kwargs_ = reads_kwargs_ || kwargs;
    return macro;
  }

  StatementPtr filter_block(int where) {
    auto block = made(Does::filter, where);
    block->expressions.push_back(filters(nullptr));
    block->blocks.push_back(whole_body("endfilter"));
    return block;
  }

  StatementPtr with(int where) {
    auto block = made(Does::with, where);
    while (token().kind != Token::Kind::statement_end) {
      if (!block->expressions.empty()) want_symbol(",");
      block->expressions.push_back(target({}, Attributes::refused));
      want_symbol("=");
      block->expressions.push_back(expression());
    }
    block->blocks.push_back(whole_body("endwith"));
    return block;
  }

  StatementPtr generated(int where) {
    auto block = made(Does::generated, where);
    const int loops = std::exchange(loops_, 0);
    block->blocks.push_back(whole_body("endgeneration"));
    loops_ = loops;
    return block;
  }

  StatementPtr print(int where) {
    auto shown = made(Does::output, where);
    while (token().kind != Token::Kind::statement_end) {
      if (!shown->expressions.empty()) want_symbol(",");
      shown->expressions.push_back(expression());
    }
    return shown;
  }

  StatementPtr jump(const std::string& tag, int where) {
    if (loops_ == 0) refuse("'" + tag + "' stands outside a loop", where);
    return made(tag == "break" ? Does::leave : Does::next, where);
  }

  // ---- targets of assignments

  enum class Attributes { refused, allowed };

  Node target(std::string_view end_name, Attributes attributes) {
    Node made = tuple_of(end_name, Empty::refused, [&] { return target_item(attributes); });
    return made;
  }

  Node target_item(Attributes attributes) {
    const Level level(*this);
    if (take_symbol("(")) {
      Node inner = tuple_of({}, Empty::refused, [&] { return target_item(attributes); });
      want_symbol(")");
      return inner;
    }
    const int where = line();
    Node name = named({Token::Kind::name, where, any_name(), {}});
    if (name->kind != Kind::name) refuse("a constant cannot be assigned to", where);
    if (attributes == Attributes::refused || !take_symbol(".")) return name;
    Node attribute = node(Kind::attribute, where);
    attribute->name = any_name();
    attribute->of.push_back(std::move(name));
    return attribute;
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int levels_ = 0, loops_ = 0;
  bool reads_varargs_ = false, reads_kwargs_ = false;
};

}  // namespace

Block parse_template(std::string_view source) { return Parser(source).run(); }

}  // namespace plait::jinja
