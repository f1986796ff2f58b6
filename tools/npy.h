// NumPy's .npy files: one-dimensional integers in, two-dimensional float32 out.
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
// What precedes rows * cols little-endian float32 values of an array [rows, cols].
std::string npy_header_f32(Index rows, Index cols);

}  // namespace plait
