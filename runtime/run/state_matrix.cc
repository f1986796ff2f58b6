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

// One-sided Jacobi (Hestenes; Golub and Van Loan, section 8.6.3): rotations from the right make the columns
// of a orthogonal, v collects them. Columns of length `rows` one after the other.
class OneSidedJacobi {
 public:
  OneSidedJacobi(std::vector<double> a, Index rows, Index cols)
      : rows_(rows), cols_(cols), a_(std::move(a)), v_(static_cast<std::size_t>(cols * cols)) {
    for (Index c = 0; c < cols_; ++c) right(c)[c] = 1;
    constexpr int kMostSweeps = 40;
    for (int sweep = 0; sweep < kMostSweeps && rotate_all(); ++sweep) {
    }
  }

  const double* left(Index c) const { return a_.data() + c * rows_; }   // singular value times left vector
  const double* right(Index c) const { return v_.data() + c * cols_; }  // right vector

  // Columns by falling singular value, of equals the lower one first.
  std::vector<Index> order() const {
    std::vector<double> squares;
    for (Index c = 0; c < cols_; ++c) squares.push_back(dot(left(c), left(c), rows_));
    std::vector<Index> columns(static_cast<std::size_t>(cols_));
    std::iota(columns.begin(), columns.end(), Index{0});
    std::stable_sort(columns.begin(), columns.end(), [&](Index x, Index y) {
      return squares[static_cast<std::size_t>(x)] > squares[static_cast<std::size_t>(y)];
    });
    return columns;
  }

 private:
  double* left(Index c) { return a_.data() + c * rows_; }
  double* right(Index c) { return v_.data() + c * cols_; }

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

  static void rotate(double* x, double* y, Index n, double cosine, double sine) {
    for (Index i = 0; i < n; ++i) {
      const double a = x[i], b = y[i];
      x[i] = cosine * a - sine * b;
      y[i] = sine * a + cosine * b;
    }
  }

  // One sweep over all pairs; false when every pair was orthogonal already.
  bool rotate_all() {
    constexpr double kOrthogonal = 1e-13;
    bool rotated = false;
    for (Index p = 0; p + 1 < cols_; ++p)
      for (Index q = p + 1; q < cols_; ++q) {
        const double xx = dot(left(p), left(p), rows_), yy = dot(left(q), left(q), rows_),
                     xy = dot(left(p), left(q), rows_);
        if (std::abs(xy) <= kOrthogonal * std::sqrt(xx * yy)) continue;
        const double zeta = (yy - xx) / (2 * xy);
        const double tangent = (zeta < 0 ? -1 : 1) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
        const double cosine = 1 / std::sqrt(1 + tangent * tangent);
        rotate(left(p), left(q), rows_, cosine, cosine * tangent);
        rotate(right(p), right(q), cols_, cosine, cosine * tangent);
        rotated = true;
      }
    return rotated;
  }

  Index rows_, cols_;
  std::vector<double> a_, v_;
};

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
  // The shorter side is rotated.
  const bool tall = m.rows >= m.cols;
  const Index rows = tall ? m.rows : m.cols, cols = least;
  std::vector<double> a(static_cast<std::size_t>(rows * cols));
  for_each_row(m, [&](const float* x, Index n, Index c, Index r) {
    for (Index i = 0; i < n; ++i)
      a[static_cast<std::size_t>(tall ? (c + i) * rows + r : r * rows + c + i)] = static_cast<double>(x[i]);
  });
  const OneSidedJacobi svd(std::move(a), rows, cols);
  std::vector<Index> kept = svd.order();
  kept.resize(static_cast<std::size_t>(rank));
  for_each_row(m, [&](float* x, Index n, Index c, Index r) {
    for (Index i = 0; i < n; ++i) {
      const Index row = tall ? r : c + i, col = tall ? c + i : r;
      double sum = 0;
      for (const Index k : kept) sum += svd.left(k)[row] * svd.right(k)[col];
      x[i] = static_cast<float>(sum);
    }
  });
}

}  // namespace plait
