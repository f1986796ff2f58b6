#include "layers/reference/dense.h"

#include <Eigen/Core>

namespace plait {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Stride = Eigen::OuterStride<>;

}  // namespace

void dense_product(View<const double> x, std::span<const double> weight, View<double> y) {
  assert(x.rows == y.rows && static_cast<Index>(weight.size()) == x.cols * y.cols);
  const Eigen::Map<const Matrix, 0, Stride> left(x.data, x.rows, x.cols, Stride(x.stride));
  const Eigen::Map<const Matrix> right(weight.data(), y.cols, x.cols);
  Eigen::Map<Matrix, 0, Stride> product(y.data, y.rows, y.cols, Stride(y.stride));
  product.noalias() = left * right.transpose();
}

}  // namespace plait
