// What softmax-family 2.12 and 7 say of softmax_free_attention.
#include <gtest/gtest.h>

#include <cmath>

#include "layers/reference/softmax_free_attention.h"
#include "runtime/base/error.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"

namespace plait {
namespace {

using testing::expect_near;
using testing::OneKind;
using testing::random_input;

using Matrix = std::vector<double>;
constexpr Index kWidth = 24;
constexpr const char* kKind = "softmax_free_attention";

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  s.grids = {32, 64, 128};
  s.causal = false;
  return s;
}

OneKind random_kind(const Json& settings, std::uint64_t seed) {
  return {kKind, settings, surroundings(), OneKind::random_values(kKind, settings, surroundings(), seed)};
}

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

// a b, both [n, n]
Matrix product(const Matrix& a, const Matrix& b, Index n) {
  Matrix c(at(n * n));
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j)
      for (Index l = 0; l < n; ++l) c[at(i * n + j)] += a[at(i * n + l)] * b[at(l * n + j)];
  return c;
}

// |(a + ridge I) v - I|, Frobenius
double defect(Matrix a, const Matrix& v, Index n, double ridge) {
  for (Index i = 0; i < n; ++i) a[at(i * n + i)] += ridge;
  Matrix pv = product(a, v, n);
  double sum = 0;
  for (Index i = 0; i < n; ++i) pv[at(i * n + i)] -= 1;
  for (const double x : pv) sum += x * x;
  return std::sqrt(sum);
}

Matrix normals(Index count, std::uint64_t seed, double scale = 1) {
  return testing::widen(testing::Numbers(seed).normals(count, scale));
}

// Whole grids, incomplete ones, and sequences too short for a landmark; and without what is added to the
// kernel.
TEST(SoftmaxFreeAttention, MeetsItsTwin) {
  const Kind& kind = Registry::builtin().find(kKind);
  std::vector<std::string> all = kind.examples;
  for (const char* own : {R"("ratio": 4)", R"("ratio": 4, "ridge": 0)", R"("ratio": 4, "normalised": true)",
                          R"("ratio": 3, "grid_width": 12)", R"("ratio": 1)"})
    all.push_back(cat(R"({"num_heads": 2, "head_dim": 8, "bias": false, )", own, "}"));
  for (const std::string& settings : all)
    for (const Index rows : {150, 37, 3, 1}) {
      SCOPED_TRACE(cat(settings, ", ", rows, " rows"));
      const OneKind layer = random_kind(Json::parse(settings), 2);
      const auto input = random_input(rows, kWidth, 1);
      expect_near(layer.run(input), layer.twin(input), kind.bound_factor, 150);
    }
}

// I - P V is squared by every iteration; from the authors' start it vanishes.
TEST(SoftmaxFreeAttention, NewtonsMethodConvergesQuadratically) {
  const Index n = 16, d = 8;
  const Matrix z = normals(n * d, 3), a = reference::gaussian_kernel(z, z, d);
  for (const bool normalised : {false, true}) {
    const double ridge = normalised ? 0 : 0.01;
    double before = defect(a, reference::newton_inverse(a, n, ridge, normalised, 0), n, ridge);
    for (Index it = 1; it <= 20; ++it) {
      const double now = defect(a, reference::newton_inverse(a, n, ridge, normalised, it), n, ridge);
      EXPECT_LE(now, before * before * (1 + 1e-9) + 1e-13) << it;
      before = now;
    }
    EXPECT_LE(before, 1e-12);
  }
}

// TESTED on 16 landmarks that are not given: 3.6e-3 after 10 iterations, 3e-15 after 15. Those of four
// channels lie as close: ten are too few, fifteen end at rounding.
TEST(SoftmaxFreeAttention, FifteenIterationsInvertTheRidgedKernel) {
  const Index n = 16, d = 4;
  const Matrix z = normals(n * d, 3), a = reference::gaussian_kernel(z, z, d);
  const auto left = [&](Index it) {
    return defect(a, reference::newton_inverse(a, n, 0.01, false, it), n, 0.01);
  };
  EXPECT_GT(left(10), 1e-3);
  EXPECT_LT(left(10), 0.1);
  EXPECT_LE(left(15), 1e-13);
}

// Landmarks = all tokens, no ridge: the kernel itself. Its rows sum to what they like.
TEST(SoftmaxFreeAttention, AllTokensAsLandmarksAreTheKernelAndNotSoftmax) {
  const Index n = 12, d = 8;
  const Matrix z = normals(n * d, 4), a = reference::gaussian_kernel(z, z, d);
  const Matrix inverse = reference::newton_inverse(a, n, 0, true, 40);
  const Matrix through = product(product(a, inverse, n), a, n);
  EXPECT_LE(testing::relative_error(through, a), 1e-12);
  double least = 1e30, most = 0;
  for (Index i = 0; i < n; ++i) {
    double sum = 0;
    for (Index j = 0; j < n; ++j) sum += a[at(i * n + j)];
    least = std::min(least, sum);
    most = std::max(most, sum);
  }
  EXPECT_GE(least, 1);  // the diagonal
  EXPECT_GT(most - least, 1e-3);
}

// Ratio 1 has no landmarks: O = exp(-|z_i - z_j|^2 / 2) V with every token's own z.
TEST(SoftmaxFreeAttention, RatioOneIsTheKernelOfTheTokens) {
  const Index rows = 40, d = 8;
  const Json settings = {{"num_heads", 1}, {"head_dim", d}, {"ratio", 1}, {"bias", false}};
  auto values = OneKind::random_values(kKind, settings, surroundings(), 5);
  values["v"].assign(values["v"].size(), 0);
  values["o"].assign(values["o"].size(), 0);
  values["v"][0] = 1;  // value = first column of x, and so is the output
  values["o"][0] = 1;
  values["landmark"].assign(values["landmark"].size(), 0);  // z = gelu(shift) for all: the kernel is 1
  const OneKind layer(kKind, settings, surroundings(), values);
  const auto input = random_input(rows, kWidth, 6);
  const std::vector<float> y = layer.run(input);
  double sum = 0;
  for (Index r = 0; r < rows; ++r) sum += static_cast<double>(input.inputs[0][at(r * kWidth)]);
  for (Index r = 0; r < rows; ++r)
    EXPECT_NEAR(static_cast<double>(y[at(r * kWidth)]), sum, 8 * testing::kEps * rows);
}

// The taps of a token that stands in a corner of the grid, in the second row, and behind the last complete
// row.
TEST(SoftmaxFreeAttention, TapsLieOnTheGrid) {
  const Index rows = 13, width = 5;  // rows of 5, 5 and 3 tokens
  const Json settings = {{"num_heads", 1},      {"head_dim", 8}, {"ratio", 7},
                         {"grid_width", width}, {"conv", 3},     {"bias", false}};
  auto values = OneKind::random_values(kKind, settings, surroundings(), 7);
  values["v"].assign(values["v"].size(), 0);
  values["o"].assign(values["o"].size(), 0);
  values["v"][0] = values["o"][0] = 1;
  for (std::size_t i = 0; i < 9; ++i) values["taps"][i] = static_cast<float>(i + 1);
  const OneKind layer(kKind, settings, surroundings(), values);  // patches of 7 x 7: no landmark
  testing::KindInput input{rows, {std::vector<float>(at(rows * kWidth))}, {}};
  for (Index r = 0; r < rows; ++r) input.inputs[0][at(r * kWidth)] = std::exp2f(static_cast<float>(r));
  const std::vector<float> y = layer.run(input);
  const auto value = [&](Index r) { return std::exp2(static_cast<double>(r)); };
  EXPECT_EQ(static_cast<double>(y[0]), 5 * value(0) + 6 * value(1) + 8 * value(5) + 9 * value(6));
  EXPECT_EQ(static_cast<double>(y[at(9 * kWidth)]),
            1 * value(3) + 2 * value(4) + 4 * value(8) + 5 * value(9));
  EXPECT_EQ(static_cast<double>(y[at(12 * kWidth)]),
            1 * value(6) + 2 * value(7) + 3 * value(8) + 4 * value(11) + 5 * value(12));
}

TEST(SoftmaxFreeAttention, RefusesWhatMeansNothing) {
  const auto refuse = [](const Json& settings, const std::string& part) {
    try {
      random_kind(settings, 1);
      ADD_FAILURE() << settings.dump() << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refuse({{"num_heads", 2}, {"head_dim", 8}, {"ratio", 2}, {"conv", 4}}, "conv");
  refuse({{"num_heads", 2}, {"head_dim", 8}, {"ratio", 2}, {"ridge", -1}}, "ridge");
  refuse({{"num_heads", 2}, {"head_dim", 8}, {"ratio", 2}, {"normalised", true}, {"ridge", 0.1}}, "ridge");
  refuse({{"num_heads", 2}, {"head_dim", 8}, {"ratio", 1}, {"iterations", 3}}, "iterations");
}

}  // namespace
}  // namespace plait
