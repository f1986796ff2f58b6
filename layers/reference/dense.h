// Dense algebra of the twins: Eigen over OpenBLAS, in double.
#pragma once

#include <span>

#include "runtime/base/view.h"

namespace plait {

// y = x W'. x [rows, in], weight [out, in] in rows without gaps, y [rows, out].
void dense_product(View<const double> x, std::span<const double> weight, View<double> y);

}  // namespace plait
