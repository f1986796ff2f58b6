// Norms by their definition from the table's own parts, and their independence from rows and threads.
#include "runtime/kernels/rowwise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing.h"

namespace plait {
namespace {

using testing::Numbers;
using testing::same_bits;

std::vector<float> normal_values(Index count, std::uint64_t seed, double scale = 1) {
  return Numbers(seed).normals(count, scale);
}

struct Case {
  Index rows, cols, group;
};
constexpr Case kCases[] = {{1, 7, 7}, {5, 96, 32}, {300, 256, 64}, {40, 1030, 1030}};

TEST(Rowwise, NormsAreWithinRounding) {
  for (const auto [rows, cols, group] : kCases) {
    const auto x = normal_values(rows * cols, 1, 3.0f), gain = normal_values(group, 2),
               bias = normal_values(cols, 3);
    std::vector<float> rms(x.size()), layer(x.size()), l2(x.size());
    const auto in = View<const float>(x.data(), rows, cols);
    rms_norm(in, group, 1e-6f, gain, {rms.data(), rows, cols}, {});
    layer_norm(in, group, 1e-5f, gain, bias, {layer.data(), rows, cols}, {});
    l2_norm(in, group, 1e-6f, 1, {l2.data(), rows, cols}, {});
    const double n = static_cast<double>(group);
    for (Index r = 0; r < rows; ++r)
      for (Index first = 0; first < cols; first += group) {
        double sum = 0, squares = 0, spread = 0;
        for (Index c = first; c < first + group; ++c) sum += in(r, c);
        for (Index c = first; c < first + group; ++c) {
          squares += double{in(r, c)} * in(r, c);
          spread += (in(r, c) - sum / n) * (in(r, c) - sum / n);
        }
        for (Index c = first; c < first + group; ++c) {
          const auto at = static_cast<std::size_t>(r * cols + c);
          const double g = gain[static_cast<std::size_t>(c - first)], b = bias[static_cast<std::size_t>(c)];
          const double eps = 0x1p-24 * (4 + std::sqrt(n));
          const double centred = (in(r, c) - sum / n) / std::sqrt(spread / n + double{1e-5f});
          ASSERT_NEAR(rms[at], in(r, c) / std::sqrt(squares / n + double{1e-6f}) * g,
                      eps * std::abs(rms[at]));
          ASSERT_NEAR(l2[at], in(r, c) / std::sqrt(squares + double{1e-6f}), eps * std::abs(l2[at]));
          ASSERT_NEAR(layer[at], centred * g + b,
                      eps * ((std::abs(centred) + 1) * std::abs(g) + std::abs(b)));
        }
      }
  }
}

TEST(Rowwise, RowsThreadsAndSetsChangeNoBit) {
  for (const auto [rows, cols, group] : kCases) {
    const auto x = normal_values(rows * cols, 1), gain = normal_values(cols, 2);
    std::vector<float> wanted(x.size());
    rms_norm({x.data(), rows, cols}, group, 1e-6f, gain, {wanted.data(), rows, cols},
             {Numerics::exact, Isa::portable, 1});
    for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
      for (const int threads : {1, 2}) {
        if (!machine_has(isa)) continue;
        const Compute compute{Numerics::exact, isa, threads};
        auto y = x;
        rms_norm({x.data(), rows, cols}, group, 1e-6f, gain, {y.data(), rows, cols}, compute);
        EXPECT_TRUE(same_bits(y, wanted)) << name_of(isa);
        y = x;
        for (Index r = 0; r < rows; ++r)
          rms_norm({y.data() + r * cols, 1, cols}, group, 1e-6f, gain, {y.data() + r * cols, 1, cols},
                   compute);
        EXPECT_TRUE(same_bits(y, wanted)) << name_of(isa);
      }
  }
}

TEST(Rowwise, MapsZipsScalesAndBiases) {
  const Index rows = 70, cols = 530;
  const auto x = normal_values(rows * cols, 1), y = normal_values(rows * cols, 2),
             bias = normal_values(cols, 3);
  const Compute compute{Numerics::exact, Isa::automatic, 2};
  const Kernels& k = kernels(compute);
  std::vector<float> mapped(x.size()), zipped(x.size()), scaled(x.size()), biased = x, wanted(x.size());
  map_rows(k.silu, {x.data(), rows, cols}, {mapped.data(), rows, cols}, compute);
  zip_rows(k.multiply, {x.data(), rows, cols}, {y.data(), rows, cols}, {zipped.data(), rows, cols}, compute);
  scale_rows({x.data(), rows, cols}, 0.3f, {scaled.data(), rows, cols}, compute);
  add_bias(bias, {biased.data(), rows, cols}, compute);
  k.silu(x.data(), wanted.data(), rows * cols);
  EXPECT_TRUE(same_bits(mapped, wanted));
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(zipped[i], x[i] * y[i]);
    ASSERT_EQ(scaled[i], x[i] * 0.3f);
    ASSERT_EQ(biased[i], x[i] + bias[i % static_cast<std::size_t>(cols)]);
  }
}

}  // namespace
}  // namespace plait
