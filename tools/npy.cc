#include "tools/npy.h"

#include <charconv>
#include <cstring>

#include "runtime/base/error.h"

namespace plait {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);

// The value of `key` in the header's Python dictionary, up to the comma or brace that ends it; tuples keep
// theirs.
std::string_view value_of(std::string_view header, std::string_view key) {
  const std::size_t at = header.find(cat("'", key, "'"));
  if (at == std::string_view::npos) return {};
  std::size_t begin = header.find(':', at);
  if (begin == std::string_view::npos) return {};
  begin = header.find_first_not_of(' ', begin + 1);
  if (begin == std::string_view::npos) return {};
  const std::size_t end = header.find_first_of(header[begin] == '(' ? ")" : ",}", begin);
  if (end == std::string_view::npos) return {};
  return header.substr(begin, end - begin);
}

// "(5, 3" -> 5, 3; nothing unless it is a tuple of lengths.
std::vector<std::int64_t> lengths_of(std::string_view shape) {
  std::vector<std::int64_t> lengths;
  if (shape.empty() || shape[0] != '(') return {};
  for (std::size_t at = 1; (at = shape.find_first_not_of(", ", at)) != std::string_view::npos;) {
    std::int64_t length = -1;
    const auto [after, error] = std::from_chars(shape.data() + at, shape.data() + shape.size(), length);
    if (error != std::errc() || length < 0) return {};
    lengths.push_back(length);
    at = static_cast<std::size_t>(after - shape.data());
  }
  return lengths;
}

struct Array {
  std::string_view type;   // "'<f4'"
  std::string_view shape;  // "(5, 3": up to its closing bracket
  bool fortran = false;
  std::string_view data;
};

Array parse_array(std::string_view bytes, const std::string& origin) {
  if (!is_npy(bytes)) fail("'", origin, "' is no .npy file");
  const auto byte = [&](std::size_t i) {
    return static_cast<std::size_t>(static_cast<unsigned char>(bytes[i]));
  };
  if (bytes.size() < 12) fail("'", origin, "' ends inside the header of its array");
  const std::size_t version = byte(6);
  if (version < 1 || version > 3)
    fail("'", origin, "' is of npy version ", version, "; versions 1 to 3 are read");
  const std::size_t begin = version == 1 ? 10 : 12;
  const std::size_t length =
      version == 1 ? byte(8) | byte(9) << 8 : byte(8) | byte(9) << 8 | byte(10) << 16 | byte(11) << 24;
  if (bytes.size() - begin < length) fail("'", origin, "' ends inside the header of its array");
  const std::string_view header = bytes.substr(begin, length);
  return {value_of(header, "descr"), value_of(header, "shape"), value_of(header, "fortran_order") == "True",
          bytes.substr(begin + length)};
}

void check_size(const Array& array, std::size_t width, const std::vector<std::int64_t>& lengths,
                const std::string& origin) {
  std::size_t count = 1;
  bool overflow = false;
  for (const std::int64_t length : lengths)
    overflow |= __builtin_mul_overflow(count, static_cast<std::size_t>(length), &count);
  if (overflow || array.data.size() / width != count || array.data.size() % width != 0)
    fail("'", origin, "' promises ", overflow ? "too many" : cat(count), " values of ", width,
         " bytes, but holds ", array.data.size(), " bytes");
}

template <class T, class To>
std::vector<To> values_of(std::string_view data) {
  std::vector<To> values(data.size() / sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<To>(value);
  }
  return values;
}

}  // namespace

bool is_npy(std::string_view bytes) { return bytes.starts_with(kMagic); }

std::vector<std::int64_t> parse_npy_integers(std::string_view bytes, const std::string& origin) {
  const Array array = parse_array(bytes, origin);
  const std::size_t width = array.type == "'<i4'" ? 4 : array.type == "'<i8'" ? 8 : 0;
  if (width == 0) fail("'", origin, "' holds an array of type ", array.type, "; integers are '<i4' or '<i8'");
  const auto lengths = lengths_of(array.shape);
  if (lengths.size() != 1)
    fail("'", origin, "' holds an array of shape ", array.shape, "); a list of integers has one dimension");
  check_size(array, width, lengths, origin);
  return width == 4 ? values_of<std::int32_t, std::int64_t>(array.data)
                    : values_of<std::int64_t, std::int64_t>(array.data);
}

NpyNumbers parse_npy_numbers(std::string_view bytes, const std::string& origin) {
  const Array array = parse_array(bytes, origin);
  const bool narrow = array.type == "'<f4'" || array.type == "'<i4'";
  if (!narrow && array.type != "'<f8'" && array.type != "'<i8'")
    fail("'", origin, "' holds an array of type ", array.type, "; numbers are '<f4', '<f8', '<i4' or '<i8'");
  const auto lengths = lengths_of(array.shape);
  if (lengths.empty() || lengths.size() > 2)
    fail("'", origin, "' holds an array of shape ", array.shape, "); one or two dimensions are read");
  if (array.fortran)
    fail("'", origin, "' holds its array column by column; numpy.ascontiguousarray gives what is read");
  check_size(array, narrow ? 4 : 8, lengths, origin);
  NpyNumbers numbers;
  numbers.rows = lengths[0];
  numbers.matrix = lengths.size() == 2;
  if (numbers.matrix) numbers.cols = lengths[1];
  numbers.values = array.type == "'<f4'"   ? values_of<float, double>(array.data)
                   : array.type == "'<f8'" ? values_of<double, double>(array.data)
                   : array.type == "'<i4'" ? values_of<std::int32_t, double>(array.data)
                                           : values_of<std::int64_t, double>(array.data);
  return numbers;
}

std::string npy_header(std::string_view type, std::string_view shape) {
  std::string header = cat("{'descr': ", type, ", 'fortran_order': False, 'shape': ", shape, ", }");
  const std::size_t fixed = kMagic.size() + 4;
  header.append((64 - (fixed + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  std::string bytes(kMagic);
  bytes += {'\x01', '\x00', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  return bytes + header;
}

std::string npy_header_f32(Index rows, Index cols) {
  return npy_header("'<f4'", cat("(", rows, ", ", cols, ")"));
}

}  // namespace plait
