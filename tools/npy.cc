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

// "(5," -> 5; -1 unless it is a tuple of one number.
std::int64_t single_length(std::string_view shape) {
  std::int64_t length = -1;
  if (shape.empty() || shape[0] != '(') return -1;
  const auto [after, error] = std::from_chars(shape.data() + 1, shape.data() + shape.size(), length);
  if (error != std::errc() || length < 0) return -1;
  const std::string_view rest(after, static_cast<std::size_t>(shape.data() + shape.size() - after));
  return rest.find_first_not_of(", ") == std::string_view::npos ? length : -1;
}

template <class T>
std::vector<std::int64_t> integers(std::string_view data, std::int64_t count) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
    values[i] = value;
  }
  return values;
}

}  // namespace

bool is_npy(std::string_view bytes) { return bytes.starts_with(kMagic); }

std::vector<std::int64_t> parse_npy_integers(std::string_view bytes, const std::string& origin) {
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
  const std::string_view header = bytes.substr(begin, length), data = bytes.substr(begin + length);

  const std::string_view type = value_of(header, "descr"), shape = value_of(header, "shape");
  const std::size_t width = type == "'<i4'" ? 4 : type == "'<i8'" ? 8 : 0;
  if (width == 0) fail("'", origin, "' holds an array of type ", type, "; token ids are '<i4' or '<i8'");
  const std::int64_t count = single_length(shape);
  if (count < 0) fail("'", origin, "' holds an array of shape ", shape, "); token ids have one dimension");
  if (data.size() / width != static_cast<std::size_t>(count) || data.size() % width != 0)
    fail("'", origin, "' promises ", count, " values of ", width, " bytes, but holds ", data.size(),
         " bytes");
  return width == 4 ? integers<std::int32_t>(data, count) : integers<std::int64_t>(data, count);
}

std::string npy_header_f32(Index rows, Index cols) {
  std::string header = cat("{'descr': '<f4', 'fortran_order': False, 'shape': (", rows, ", ", cols, "), }");
  const std::size_t fixed = kMagic.size() + 4;
  header.append((64 - (fixed + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  std::string bytes(kMagic);
  bytes += {'\x01', '\x00', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  return bytes + header;
}

}  // namespace plait
