#include "runtime/run/state_matrix.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/base/half.h"
#include "runtime/base/noise.h"

namespace plait {
namespace {

constexpr Index kPanelColumns = 32;

// Calls body(row of a panel, its columns, first column, row).
template <class Body>
void for_each_row(const StateMatrix& m, Body&& body) {
  for (Index c = 0; c < m.cols; c += kPanelColumns)
    for (Index r = 0; r < m.rows; ++r) body(m.row(c, r), std::min(kPanelColumns, m.cols - c), c, r);
}

bool is_state_edit(const Edit& edit, Every every) {
  return edit.site == Site::state && edit.every == every &&
         (edit.op == Operator::rank || edit.op == Operator::noise || edit.op == Operator::cast);
}

void disturb(const StateMatrix& m, double size, std::uint64_t key) {
  double sum = 0;
  for_each_row(m, [&](const float* x, Index n, Index, Index) {
    for (Index i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  });
  const auto scale = static_cast<float>(size * std::sqrt(sum / static_cast<double>(m.rows * m.cols)));
  for_each_row(m, [&](float* x, Index n, Index c, Index r) {
    add_noise(key + static_cast<std::uint64_t>(c * m.rows + r * kPanelColumns) * 0x9e3779b97f4a7c15ull, scale,
              x, n);
  });
}

void round_to_int8(const StateMatrix& m) {
  float largest = 0;
  for_each_row(m, [&](const float* x, Index n, Index, Index) {
    for (Index i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
  });
  if (largest == 0) return;
  const float scale = largest / 127;
  constexpr float kToEven = 0x1.8p23f;  // adding it leaves no room for a fraction
  for_each_row(m, [&](float* x, Index n, Index, Index) {
    for (Index i = 0; i < n; ++i) x[i] = (x[i] / scale + kToEven - kToEven) * scale;
  });
}

void cast(const StateMatrix& m, Storage to) {
  if (to == Storage::int8) return round_to_int8(m);
  for_each_row(m, [&](float* x, Index n, Index, Index) {
    if (to == Storage::bf16)
      for (Index i = 0; i < n; ++i) x[i] = to_float(to_bf16(x[i]));
    else
      for (Index i = 0; i < n; ++i) x[i] = to_float(to_f16(x[i]));
  });
}

// One-sided Jacobi (Hestenes; Golub and Van Loan, section 8.6.3): rotations from the right until the columns
// are orthogonal; they are then singular values times left vectors. Columns of length `rows` one after the
// other.
class OneSidedJacobi {
 public:
  OneSidedJacobi(std::vector<double> a, Index rows, Index cols)
      : rows_(rows), cols_(cols), a_(std::move(a)), squares_(static_cast<std::size_t>(cols)) {
    constexpr int kMostSweeps = 40;
    for (int sweep = 0; sweep < kMostSweeps && rotate_all(); ++sweep) {
    }
    measure();
  }

  std::vector<double> values() const {
    std::vector<double> all;
    for (const double square : squares_) all.push_back(std::sqrt(std::max(square, 0.0)));
    return all;
  }

  // The unit left vectors of the `count` largest singular values that are not zero [rows] each; of equals the
  // lower column first.
  std::vector<std::vector<double>> left(Index count) const {
    std::vector<Index> columns(static_cast<std::size_t>(cols_));
    std::iota(columns.begin(), columns.end(), Index{0});
    std::stable_sort(columns.begin(), columns.end(), [&](Index x, Index y) { return square(x) > square(y); });
    std::vector<std::vector<double>> all;
    for (Index i = 0; i < count; ++i) {
      const Index c = columns[static_cast<std::size_t>(i)];
      if (square(c) == 0) break;
      all.emplace_back(column(c), column(c) + rows_);
      for (double& value : all.back()) value /= std::sqrt(square(c));
    }
    return all;
  }

 private:
  double* column(Index c) { return a_.data() + c * rows_; }
  const double* column(Index c) const { return a_.data() + c * rows_; }
  double& square(Index c) { return squares_[static_cast<std::size_t>(c)]; }
  double square(Index c) const { return squares_[static_cast<std::size_t>(c)]; }

  // Eight lanes, added in order.
  static double dot(const double* x, const double* y, Index n) {
    constexpr Index kLanes = 8;
    double lanes[kLanes] = {}, sum = 0;
    Index i = 0;
    for (; i + kLanes <= n; i += kLanes)
      for (Index l = 0; l < kLanes; ++l) lanes[l] += x[i + l] * y[i + l];
    for (Index l = 0; i < n; ++i, ++l) lanes[l] += x[i] * y[i];
    for (const double lane : lanes) sum += lane;
    return sum;
  }

  void measure() {
    for (Index c = 0; c < cols_; ++c) square(c) = dot(column(c), column(c), rows_);
  }

  // One sweep over all pairs; false when every pair was orthogonal already, up to what a square of it adds to
  // an f32.
  bool rotate_all() {
    constexpr double kOrthogonal = 1e-10;
    bool rotated = false;
    measure();
    for (Index p = 0; p + 1 < cols_; ++p)
      for (Index q = p + 1; q < cols_; ++q) {
        const double xy = dot(column(p), column(q), rows_);
        if (std::abs(xy) <= kOrthogonal * std::sqrt(std::abs(square(p) * square(q)))) continue;
        const double zeta = (square(q) - square(p)) / (2 * xy);
        const double tangent = (zeta < 0 ? -1 : 1) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
        const double cosine = 1 / std::sqrt(1 + tangent * tangent);
        rotate(column(p), column(q), cosine, cosine * tangent);
        square(p) -= tangent * xy;
        square(q) += tangent * xy;
        rotated = true;
      }
    return rotated;
  }

  void rotate(double* x, double* y, double cosine, double sine) const {
    for (Index i = 0; i < rows_; ++i) {
      const double a = x[i], b = y[i];
      x[i] = cosine * a - sine * b;
      y[i] = sine * a + cosine * b;
    }
  }

  Index rows_, cols_;
  std::vector<double> a_, squares_;
};

// The columns of the matrix one after the other, or its rows where these are longer: the shorter side is
// rotated.
std::vector<double> columns_of(const StateMatrix& m) {
  const bool tall = m.rows >= m.cols;
  std::vector<double> a(static_cast<std::size_t>(m.rows * m.cols));
  for_each_row(m, [&](const float* x, Index n, Index c, Index r) {
    for (Index i = 0; i < n; ++i)
      a[static_cast<std::size_t>(tall ? (c + i) * m.rows + r : r * m.cols + c + i)] =
          static_cast<double>(x[i]);
  });
  return a;
}

}  // namespace

bool edits_state(const Segment& segment, Every every, Index head) {
  if (!segment.edits) return false;
  const auto all = segment.edits->all();
  return std::any_of(all.begin(), all.end(),
                     [&](const Edit* edit) { return is_state_edit(*edit, every) && covers(*edit, head); });
}

bool edits_state(const Segment& segment, Every every) {
  if (!segment.edits) return false;
  const auto all = segment.edits->all();
  return std::any_of(all.begin(), all.end(), [&](const Edit* edit) { return is_state_edit(*edit, every); });
}

void edit_state(const Segment& segment, Every every, Index head, Index position, Index part,
                const StateMatrix& matrix) {
  for (const Edit* edit : segment.edits->all()) {
    if (!is_state_edit(*edit, every) || !covers(*edit, head)) continue;
    const double value = value_of(*edit, head);
    if (edit->op == Operator::rank) truncate(matrix, static_cast<Index>(value));
    if (edit->op == Operator::cast) cast(matrix, edit->to);
    if (edit->op == Operator::noise)
      disturb(matrix, value,
              noise_key({edit->seed, segment.edits->layer(), static_cast<std::uint64_t>(head),
                         static_cast<std::uint64_t>(position), static_cast<std::uint64_t>(part)}));
  }
}

void truncate(const StateMatrix& m, Index rank) {
  const Index least = std::min(m.rows, m.cols);
  if (rank >= least) return;
  const bool tall = m.rows >= m.cols;
  const Index rows = tall ? m.rows : m.cols, cols = least;
  const std::vector<double> a = columns_of(m);
  // The columns' projections on the largest left vectors.
  const auto kept = OneSidedJacobi(a, rows, cols).left(rank);
  std::vector<double> best(a.size());
  for (Index c = 0; c < cols; ++c)
    for (const std::vector<double>& u : kept) {
      const double* from = a.data() + c * rows;
      double along = 0;
      for (Index r = 0; r < rows; ++r) along += from[r] * u[static_cast<std::size_t>(r)];
      for (Index r = 0; r < rows; ++r)
        best[static_cast<std::size_t>(c * rows + r)] += along * u[static_cast<std::size_t>(r)];
    }
  for_each_row(m, [&](float* x, Index n, Index c, Index r) {
    for (Index i = 0; i < n; ++i)
      x[i] = static_cast<float>(best[static_cast<std::size_t>(tall ? (c + i) * rows + r : r * rows + c + i)]);
  });
}

std::vector<double> singular_values(const StateMatrix& m) {
  return OneSidedJacobi(columns_of(m), std::max(m.rows, m.cols), std::min(m.rows, m.cols)).values();
}

}  // namespace plait
