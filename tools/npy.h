// NumPy's .npy files: integers and tables of numbers in, float32 matrices and records out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/view.h"

namespace plait {

bool is_npy(std::string_view bytes);
// A one-dimensional array of little-endian int32 or int64. Throws Error naming `origin` for anything else.
std::vector<std::int64_t> parse_npy_integers(std::string_view bytes, const std::string& origin);
// A row-major array of one or two dimensions of little-endian float32, float64, int32 or int64, as doubles.
struct NpyNumbers {
  Index rows = 0, cols = 1;
  bool matrix = false;         // two dimensions
  std::vector<double> values;  // [rows, cols]
};
// Throws Error naming `origin` for anything else.
NpyNumbers parse_npy_numbers(std::string_view bytes, const std::string& origin);
// What precedes the values of an array: type and shape as Python writes them, "'<f4'" and "(3, 5)".
std::string npy_header(std::string_view type, std::string_view shape);
// What precedes rows * cols little-endian float32 values of an array [rows, cols].
std::string npy_header_f32(Index rows, Index cols);

}  // namespace plait
