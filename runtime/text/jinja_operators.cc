#include "runtime/text/jinja_operators.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/text/jinja_methods.h"
#include "runtime/text/python_text.h"

namespace plait::jinja {
namespace {

constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};

const char* symbol(Operator operation) { return kSymbols[static_cast<int>(operation)]; }

std::optional<std::int64_t> integer_of(const Value& value) {
  if (const auto* flag = value.as<bool>()) return *flag ? 1 : 0;
  if (const auto* integer = value.as<std::int64_t>()) return *integer;
  return std::nullopt;
}

std::optional<double> real_of(const Value& value) {
  if (const auto integer = integer_of(value)) return static_cast<double>(*integer);
  if (const auto* real = value.as<double>()) return *real;
  return std::nullopt;
}

[[noreturn]] void too_large() { fail("an integer leaves 64 bits, which plait does not interpret"); }

// By reference: the call's other argument computes the result.
std::int64_t checked(bool overflow, const std::int64_t& result) {
  if (overflow) too_large();
  return result;
}

std::int64_t floor_divided(std::int64_t a, std::int64_t b) {
  if (b == 0) fail("division by zero");
  if (a == std::numeric_limits<std::int64_t>::min() && b == -1) too_large();
  const std::int64_t quotient = a / b;
  return quotient - (a % b != 0 && (a % b < 0) != (b < 0) ? 1 : 0);
}

std::int64_t remainder_of(std::int64_t a, std::int64_t b) {
  if (b == 0) fail("division by zero");
  if (b == -1) return 0;
  const std::int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

std::int64_t integer_power(std::int64_t base, std::int64_t exponent) {
  if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
  if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  std::int64_t result = 1;
  for (; exponent > 0; --exponent)  // at most 63 times before it overflows
    if (__builtin_mul_overflow(result, base, &result)) too_large();
  return result;
}

double real_power(double base, double exponent) {
  if (base == 0 && exponent < 0) fail("zero cannot be raised to a negative power");
  if (base < 0 && exponent != std::floor(exponent) && std::isfinite(base) && std::isfinite(exponent))
    fail("a negative number is raised to a fraction, which plait does not interpret");
  const double result = std::pow(base, exponent);
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) fail("a power is too large");
  return result;
}

// Python's float divmod.
double real_remainder(double a, double b) {
  if (b == 0) fail("division by zero");
  double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  if ((b < 0) != (rest < 0)) rest += b;
  return rest;
}

double real_floor_divided(double a, double b) {
  const double rest = real_remainder(a, b);
  double quotient = (a - std::fmod(a, b)) / b;
  if (rest != 0 && (b < 0) != (std::fmod(a, b) < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

Value combine_integers(Operator operation, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (operation) {
    case Operator::add:
      return checked(__builtin_add_overflow(a, b, &result), result);
    case Operator::subtract:
      return checked(__builtin_sub_overflow(a, b, &result), result);
    case Operator::multiply:
      return checked(__builtin_mul_overflow(a, b, &result), result);
    case Operator::divide:
      if (b == 0) fail("division by zero");
      return static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b));
    case Operator::floor_divide:
      return floor_divided(a, b);
    case Operator::modulo:
      return remainder_of(a, b);
    case Operator::power:
      if (b < 0) return real_power(static_cast<double>(a), static_cast<double>(b));
      return integer_power(a, b);
  }
  return {};
}

Value combine_reals(Operator operation, double a, double b) {
  switch (operation) {
    case Operator::add:
      return a + b;
    case Operator::subtract:
      return a - b;
    case Operator::multiply:
      return a * b;
    case Operator::divide:
      if (b == 0) fail("division by zero");
      return a / b;
    case Operator::floor_divide:
      return real_floor_divided(a, b);
    case Operator::modulo:
      return real_remainder(a, b);
    case Operator::power:
      return real_power(a, b);
  }
  return {};
}

Value joined_texts(Machine& machine, const Value& a, const Value& b) {
  const bool safe = a.as<Text>()->markup == Markup::yes || b.as<Text>()->markup == Markup::yes;
  const auto part = [&](const Value& value) {
    return safe ? *escaped(machine, value).text() : *value.text();
  };
  return Value(part(a) + part(b), safe ? Markup::yes : Markup::no);
}

Value joined_items(Machine& machine, const Value& a, const Value& b) {
  machine.step(a.items()->size() + b.items()->size());
  Values all = *a.items();
  all.insert(all.end(), b.items()->begin(), b.items()->end());
  return a.is<List>() ? list(std::move(all)) : tuple(std::move(all));
}

Value repeated(Machine& machine, const Value& value, std::int64_t times) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(times, 0));
  const std::size_t each = value.text() ? value.text()->size() : value.items()->size() * sizeof(Value);
  if (each > 0 && count > Machine::kMaxBytes / each) machine.make(Machine::kMaxBytes + 1);
  machine.make(each * count);
  if (const auto* text = value.as<Text>()) {
    std::string out;
    for (std::size_t i = 0; i < count && each > 0; ++i) out += *text->bytes;
    return Value(std::move(out), text->markup);
  }
  Values all;
  for (std::size_t i = 0; i < count && each > 0; ++i)
    all.insert(all.end(), value.items()->begin(), value.items()->end());
  return value.is<List>() ? list(std::move(all)) : tuple(std::move(all));
}

std::optional<std::int64_t> bound_of(const Value* value) {
  if (!value || value->is<None>()) return std::nullopt;
  want_defined(*value);
  const auto integer = integer_of(*value);
  if (!integer) fail("a slice's bound is of type ", type_name(*value), "; it must be an integer or none");
  return integer;
}

struct Slice {
  std::int64_t first, step;
  std::size_t count;
};

// Python's rule for slices of `size` items.
Slice slice_of(std::int64_t size, std::optional<std::int64_t> start, std::optional<std::int64_t> stop,
               std::optional<std::int64_t> step_or_none) {
  const std::int64_t step = step_or_none.value_or(1);
  if (step == 0) fail("a slice's step is zero");
  const bool back = step < 0;
  const std::int64_t low = back ? -1 : 0, high = back ? size - 1 : size;
  const auto placed = [&](std::optional<std::int64_t> bound, std::int64_t fallback) {
    if (!bound) return fallback;
    return std::clamp(*bound < 0 ? *bound + size : *bound, low, high);
  };
  const std::int64_t first = placed(start, back ? high : low);
  const std::int64_t last = placed(stop, back ? low : high);
  return {first, step, static_cast<std::size_t>(Range{first, last, step}.count())};
}

Value sliced_range(const Range& range, const Slice& part) {
  const auto at = [&](std::int64_t index) {
    std::int64_t place = 0;
    const bool far = __builtin_mul_overflow(index, range.step, &place) ||
                     __builtin_add_overflow(place, range.start, &place);
    return checked(far, place);
  };
  std::int64_t step = 0;
  checked(__builtin_mul_overflow(range.step, part.step, &step), 0);
  return Value::of(
      Range{at(part.first), at(part.first + static_cast<std::int64_t>(part.count) * part.step), step});
}

// A strict number: digits with single underscores between them.
bool without_underscores(std::string& text) {
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] == '_' &&
        (i == 0 || i + 1 == text.size() || !std::isalnum(static_cast<unsigned char>(text[i - 1])) ||
         !std::isalnum(static_cast<unsigned char>(text[i + 1]))))
      return false;
  std::erase(text, '_');
  return true;
}

std::string lower_ascii(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::optional<std::int64_t> parsed_integer(std::string_view text, int base) {
  std::string digits = lower_ascii(std::string(python::strip(text, python::Side::both)));
  const bool minus = digits.starts_with('-');
  if (minus || digits.starts_with('+')) digits.erase(0, 1);
  const auto prefixed = [&](char letter, int its_base) {
    if ((base != its_base && base != 0) || digits.size() < 2 || digits[0] != '0' || digits[1] != letter)
      return false;
    base = its_base;
    digits.erase(0, digits.size() > 2 && digits[2] == '_' ? 3 : 2);
    return true;
  };
  const bool any = prefixed('x', 16) || prefixed('o', 8) || prefixed('b', 2);
  if (base == 0 && !any) {
    if (digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of("0_") != std::string::npos)
      return std::nullopt;
    base = 10;
  }
  for (const char32_t c : python::wide(digits)) {
    if (c >= 0x80 && !python::is_decimal(c)) return std::nullopt;
    if (c >= 0x80) fail("a number in digits outside ASCII is not interpreted");
  }
  if (base < 2 || base > 36 || digits.empty() || !without_underscores(digits)) return std::nullopt;
  digits.insert(0, minus ? "-" : "");
  std::int64_t value = 0;
  const auto [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (last != digits.data() + digits.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) too_large();
  if (error != std::errc() || digits == "-") return std::nullopt;
  return value;
}

std::optional<double> parsed_real(std::string_view text) {
  std::string number = lower_ascii(std::string(python::strip(text, python::Side::both)));
  std::string_view bare = number;
  if (bare.starts_with('-') || bare.starts_with('+')) bare.remove_prefix(1);
  const double sign = number.starts_with('-') ? -1 : 1;
  if (bare == "inf" || bare == "infinity") return sign * std::numeric_limits<double>::infinity();
  if (bare == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (bare.empty() || bare.find_first_not_of("0123456789.e+-_") != std::string_view::npos)
    return std::nullopt;
  if (!std::isdigit(static_cast<unsigned char>(bare[0])) && bare[0] != '.') return std::nullopt;
  std::string plain(bare);
  if (!without_underscores(plain)) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(plain.c_str(), &end);
  if (end != plain.c_str() + plain.size()) return std::nullopt;
  return sign * value;
}

std::string missing_message(const Value& value, const Value& key, Machine& machine) {
  const std::string owner = value.is<None>() ? "None" : type_name(value) + " object";
  if (const std::string* name = key.text()) return "'" + owner + "' has no attribute " + python::repr(*name);
  return owner + " has no element " + (key.is<Generator>() ? "of this kind" : repr(machine, key));
}

Value missing(Machine& machine, const Value& value, const Value& key) {
  return undefined(missing_message(value, key, machine));
}

// The item itself; nothing where Python raises TypeError or LookupError.
std::optional<Value> plain_item(Machine& machine, const Value& value, const Value& key) {
  if (const auto* dict = value.as<Dict>()) {
    if (key.items() && key.is<List>()) return std::nullopt;
    if (key.is<Dict>()) return std::nullopt;
    const Value* found = dict->of->find(machine, key);
    return found ? std::optional(*found) : std::nullopt;
  }
  const auto index = integer_of(key);
  if (!index || (!value.text() && !value.items() && !value.is<Range>())) return std::nullopt;
  const std::int64_t size = *length(machine, value);
  const std::int64_t at = *index < 0 ? *index + size : *index;
  if (at < 0 || at >= size) return std::nullopt;
  if (const auto* range = value.as<Range>()) return Value(range->start + at * range->step);
  if (const auto* text = value.as<Text>()) return Value(python::pick(*text->bytes, at, 1, 1), text->markup);
  return (*value.items())[static_cast<std::size_t>(at)];
}

// What getattr() finds; nothing where it raises AttributeError.
std::optional<Value> plain_attribute(Machine& machine, const Value& value, const std::string& name) {
  if (const auto* space = value.as<std::shared_ptr<Namespace>>()) {
    const Value* found = (*space)->attributes.find(machine, name);
    return found ? std::optional(*found) : std::nullopt;
  }
  if (const auto* loop = value.as<std::shared_ptr<Loop>>()) return loop_attribute(machine, *loop, name);
  return method(value, name);
}

}  // namespace

void want_defined(const Value& value) {
  if (const auto* name = value.as<Undefined>()) fail(*name->message);
}

Value combine(Machine& machine, Operator operation, const Value& a, const Value& b) {
  const bool format = operation == Operator::modulo && a.text();
  if (!format) want_defined(a);
  if (format) return Value(printf_style(machine, *a.text(), b));
  want_defined(b);
  if (const auto x = integer_of(a), y = integer_of(b); x && y) return combine_integers(operation, *x, *y);
  if (const auto x = real_of(a), y = real_of(b); x && y) return combine_reals(operation, *x, *y);
  const bool sequences =
      (a.text() && b.text()) || (a.items() && b.items() && a.kinds().index() == b.kinds().index());
  if (operation == Operator::add && sequences)
    return a.text() ? joined_texts(machine, a, b) : joined_items(machine, a, b);
  if (operation == Operator::multiply) {
    if (const auto times = integer_of(b); times && (a.text() || a.items()))
      return repeated(machine, a, *times);
    if (const auto times = integer_of(a); times && (b.text() || b.items()))
      return repeated(machine, b, *times);
  }
  fail("'", symbol(operation), "' does not go with ", type_name(a), " and ", type_name(b));
}

Value negative(const Value& value) {
  want_defined(value);
  if (const auto integer = integer_of(value)) return combine_integers(Operator::subtract, 0, *integer);
  if (const auto* real = value.as<double>()) return -*real;
  fail("'-' does not go with ", type_name(value));
}

Value positive(const Value& value) {
  want_defined(value);
  if (const auto integer = integer_of(value)) return *integer;
  if (value.is<double>()) return value;
  fail("'+' does not go with ", type_name(value));
}

bool compare(Machine& machine, Comparison comparison, const Value& a, const Value& b) {
  switch (comparison) {
    case Comparison::equal:
      return equal(machine, a, b);
    case Comparison::unequal:
      return !equal(machine, a, b);
    case Comparison::less:
      return compare(machine, a, b) < 0;
    case Comparison::less_equal:
      return compare(machine, a, b) <= 0;
    case Comparison::greater:
      return compare(machine, a, b) > 0;
    case Comparison::greater_equal:
      return compare(machine, a, b) >= 0;
    case Comparison::in:
      return contains(machine, b, a);
    case Comparison::not_in:
      return !contains(machine, b, a);
  }
  return false;
}

Value slice(Machine& machine, const Value& value, const Value* start, const Value* stop, const Value* step) {
  want_defined(value);
  if (!value.text() && !value.items() && !value.is<Range>())
    fail("a value of type ", type_name(value), " has no slices");
  const Slice part = slice_of(*length(machine, value), bound_of(start), bound_of(stop), bound_of(step));
  if (const auto* range = value.as<Range>()) return sliced_range(*range, part);
  machine.step(part.count);
  if (const auto* text = value.as<Text>())
    return Value(python::pick(*text->bytes, part.first, part.step, part.count), text->markup);
  Values items;
  for (std::size_t i = 0; i < part.count; ++i)
    items.push_back(
        (*value.items())[static_cast<std::size_t>(part.first + static_cast<std::int64_t>(i) * part.step)]);
  return value.is<List>() ? list(std::move(items)) : tuple(std::move(items));
}

Value item(Machine& machine, const Value& value, const Value& key) {
  want_defined(value);
  if (auto found = plain_item(machine, value, key)) return *found;
  if (const std::string* name = key.text())
    if (auto found = plain_attribute(machine, value, *name); found && !name->starts_with('_')) return *found;
  return missing(machine, value, key);
}

Value attribute(Machine& machine, const Value& value, const std::string& name) {
  want_defined(value);
  if (auto found = plain_attribute(machine, value, name); found && !name.starts_with('_')) return *found;
  if (const auto* dict = value.as<Dict>())
    if (const Value* found = dict->of->find(machine, name)) return *found;
  return missing(machine, value, name);
}

std::optional<std::int64_t> to_integer(const Value& value, int base) {
  want_defined(value);
  if (const std::string* text = value.text()) return parsed_integer(*text, base);
  if (const auto integer = integer_of(value)) return integer;
  const auto* real = value.as<double>();
  if (!real || std::isnan(*real)) return std::nullopt;
  if (std::isinf(*real)) fail("an infinite number is no integer");
  if (std::abs(*real) >= 0x1p63) too_large();
  return static_cast<std::int64_t>(*real);
}

std::optional<double> to_real(const Value& value) {
  want_defined(value);
  if (const std::string* text = value.text()) return parsed_real(*text);
  return real_of(value);
}

std::int64_t integer_argument(const Value& value, const std::string& what) {
  want_defined(value);
  const auto integer = integer_of(value);
  if (!integer) fail(what, " is of type ", type_name(value), "; it must be an integer");
  return *integer;
}

const std::string& text_argument(const Value& value, const std::string& what) {
  want_defined(value);
  const std::string* text = value.text();
  if (!text) fail(what, " is of type ", type_name(value), "; it must be text");
  return *text;
}

Value escaped(Machine& machine, const Value& value) {
  if (const auto* text = value.as<Text>(); text && text->markup == Markup::yes) return value;
  std::string out;
  for (const char c : str(machine, value)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return Value(std::move(out), Markup::yes);
}

std::string replaced(Machine& machine, const std::string& text, const std::string& from,
                     const std::string& to, std::int64_t limit) {
  const std::size_t places = from.empty() ? text.size() + 1 : text.size() / from.size();
  const std::size_t growth = to.size() > from.size() ? to.size() - from.size() : 0;
  if (growth > 0 && places > Machine::kMaxBytes / growth) machine.make(Machine::kMaxBytes + 1);
  std::string out = python::replace(text, from, to, limit);
  machine.make(out.size());
  return out;
}

std::string centered(Machine& machine, const std::string& text, std::int64_t width, const std::string& fill) {
  const auto size = static_cast<std::int64_t>(python::length(text));
  if (width <= size) return text;
  const std::int64_t margin = width - size, left = margin / 2 + (margin & width & 1);
  const auto padding = [&](std::int64_t count) {
    return *combine(machine, Operator::multiply, Value(fill), Value(count)).text();
  };
  return padding(left) + text + padding(margin - left);
}

namespace {

struct Conversion {
  std::string flags;
  int width = 0, precision = -1;
  char letter = 0;
};

// What follows a '%' at `at`; `at` is left behind it.
Conversion parsed_conversion(const std::string& text, std::size_t& at) {
  Conversion conversion;
  const auto number = [&] {
    int value = 0;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])))
      if ((value = value * 10 + (text[at++] - '0')) > 1000) fail("a format's width is larger than 1000");
    return value;
  };
  while (at < text.size() && std::string_view("-+ 0#").find(text[at]) != std::string_view::npos)
    conversion.flags += text[at++];
  conversion.width = number();
  if (at < text.size() && text[at] == '.') {
    ++at;
    conversion.precision = number();
  }
  if (at == text.size()) fail("a format ends after its '%'");
  conversion.letter = text[at++];
  return conversion;
}

std::string padded(std::string text, const Conversion& conversion) {
  const auto size = static_cast<int>(python::length(text));
  const std::string padding(static_cast<std::size_t>(std::max(conversion.width - size, 0)), ' ');
  return conversion.flags.find('-') != std::string::npos ? text + padding : padding + text;
}

std::string formatted_number(const Conversion& conversion, const Value& value) {
  const bool real = std::string_view("feEgG").find(conversion.letter) != std::string_view::npos;
  std::string pattern = cat("%", conversion.flags);
  if (conversion.width > 0) pattern += std::to_string(conversion.width);
  if (conversion.precision >= 0) pattern += cat(".", conversion.precision);
  std::array<char, 2048> out;
  int size = 0;
  if (real) {
    const auto number = real_of(value);
    if (!number) fail("a format's number is of type ", type_name(value));
    if (conversion.flags.find('#') != std::string::npos) fail("the flag '#' of a format is not interpreted");
    size = std::snprintf(out.data(), out.size(), (pattern + conversion.letter).c_str(), *number);
  } else {
    const auto number =
        value.is<double>() && conversion.letter == 'd' ? to_integer(value, 10) : integer_of(value);
    if (!number) fail("a format's integer is of type ", type_name(value));
    const bool plain = conversion.precision < 0 && conversion.flags.find('#') == std::string::npos;
    if (!plain || (conversion.letter != 'd' && *number < 0)) fail("a format like this is not interpreted");
    size = std::snprintf(out.data(), out.size(), cat(pattern, "l", conversion.letter).c_str(),
                         static_cast<long>(*number));
  }
  if (size < 0 || static_cast<std::size_t>(size) >= out.size()) fail("a formatted number is too long");
  return {out.data(), static_cast<std::size_t>(size)};
}

std::string formatted(Machine& machine, const Conversion& conversion, const Value& value) {
  if (conversion.letter == 's' || conversion.letter == 'r') {
    std::string text = conversion.letter == 's' ? str(machine, value) : repr(machine, value);
    if (conversion.precision >= 0)
      text = python::narrow(
          std::u32string_view(python::wide(text)).substr(0, static_cast<std::size_t>(conversion.precision)));
    return padded(std::move(text), conversion);
  }
  if (conversion.letter == 'i' || conversion.letter == 'u')
    return formatted(machine, {conversion.flags, conversion.width, conversion.precision, 'd'}, value);
  if (std::string_view("dxXofeEgG").find(conversion.letter) == std::string_view::npos)
    fail("the format '%", conversion.letter, "' is not interpreted");
  want_defined(value);
  return formatted_number(conversion, value);
}

}  // namespace

std::string printf_style(Machine& machine, const std::string& text, const Value& values) {
  const Values one = {values};
  const Values& all = values.is<Tuple>() ? *values.items() : one;
  std::size_t used = 0;
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] != '%') {
      out += text[at++];
      continue;
    }
    const Conversion conversion = parsed_conversion(text, ++at);
    if (conversion.letter == '%') {
      out += '%';
      continue;
    }
    if (used == all.size()) fail("a format has fewer values than places");
    const std::string piece = formatted(machine, conversion, all[used++]);
    machine.make(piece.size());
    out += piece;
  }
  const bool left_over =
      used < all.size() && !(used == 0 && (values.is<Dict>() || values.is<List>() || values.is<Undefined>()));
  if (left_over) fail("a format has fewer places than values");
  return out;
}

}  // namespace plait::jinja
