// The packed product: one chain per element whatever the rows, threads, blocking and storage.
#include "runtime/kernels/linear.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::Numbers;
using testing::same_bits;

std::vector<float> run(const Linear& linear, const std::vector<float>& x, Index rows,
                       const Compute& compute) {
  std::vector<float> y(static_cast<std::size_t>(rows * linear.out()));
  linear.run(View<const float>(x.data(), rows, linear.in()), View<float>(y.data(), rows, linear.out()),
             compute);
  return y;
}

TEST(Linear, EveryElementIsOneChain) {
  Numbers numbers(1);
  for (auto [out, in] :
       std::vector<std::pair<Index, Index>>{{1, 1}, {32, 64}, {33, 31}, {100, 1100}, {70, 7}}) {
    const std::vector<float> w = numbers.normals(out * in), x = numbers.normals(5 * in);
    const std::vector<float> y = run(Linear(make_tensor({out, in}, w)), x, 5, {});
    for (Index r = 0; r < 5; ++r)
      for (Index o = 0; o < out; ++o) {
        float want = 0;
        for (Index i = 0; i < in; ++i)
          want = std::fma(x[static_cast<std::size_t>(r * in + i)], w[static_cast<std::size_t>(o * in + i)],
                          want);
        ASSERT_EQ(y[static_cast<std::size_t>(r * out + o)], want) << out << " x " << in;
      }
  }
}

TEST(Linear, ARowAloneEqualsTheSameRowOfAnyBatch) {
  Numbers numbers(2);
  const Index out = 97, in = 1301;
  const Tensor rows = make_tensor({out, in}, numbers.normals(out * in));
  for (DType dtype : {DType::f32, DType::bf16})
    for (Numerics numerics : {Numerics::exact, Numerics::fast}) {
      const Linear linear(pack(rows, dtype));
      const std::vector<float> x = numbers.normals(40 * in);
      std::vector<float> alone;
      for (Index r = 0; r < 40; ++r) {
        const std::vector<float> one =
            run(linear, {x.begin() + r * in, x.begin() + (r + 1) * in}, 1, {numerics, Isa::automatic, 1});
        alone.insert(alone.end(), one.begin(), one.end());
      }
      for (Index count = 1; count <= 40; ++count)
        for (int threads : {1, 2}) {
          const std::vector<float> y = run(linear, x, count, {numerics, Isa::automatic, threads});
          EXPECT_TRUE(same_bits(y, std::span(alone).first(y.size())))
              << count << " rows, " << threads << " threads";
        }
    }
}

TEST(Linear, ExactOnBf16WeightsEqualsF32OfTheSameValues) {
  Numbers numbers(3);
  for (Index in : {1, 2, 63, 64, 1025, 2050}) {
    const Tensor half = pack(make_tensor({40, in}, numbers.normals(40 * in)), DType::bf16);
    const Tensor full = make_tensor({40, in}, to_float(half));
    const std::vector<float> x = numbers.normals(13 * in);
    EXPECT_TRUE(same_bits(run(Linear(half), x, 13, {}), run(Linear(full), x, 13, {}))) << "in " << in;
  }
}

TEST(Linear, FastRoundsActivationsAndStaysClose) {
  Numbers numbers(4);
  const Index in = 513;
  const Tensor half = pack(make_tensor({64, in}, numbers.normals(64 * in)), DType::bf16);
  const std::vector<float> w = to_float(half), x = numbers.normals(3 * in);
  const std::vector<float> y = run(Linear(half), x, 3, {Numerics::fast, Isa::automatic, 1});
  for (Index r = 0; r < 3; ++r)
    for (Index o = 0; o < 64; ++o) {
      double sum = 0, size = 0;
      for (Index i = 0; i < in; ++i) {
        const double term = double{to_float(to_bf16(x[static_cast<std::size_t>(r * in + i)]))} *
                            w[static_cast<std::size_t>(o * in + i)];
        sum += term;
        size += std::abs(term);
      }
      EXPECT_LE(std::abs(y[static_cast<std::size_t>(r * 64 + o)] - sum), 0x1p-24 * in * size);
    }
}

TEST(Linear, RowsOfTheWeightAreWidened) {
  const std::vector<float> w = Numbers(5).normals(35 * 9);
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Tensor packed = pack(make_tensor({35, 9}, w), dtype);
    const std::vector<float> want = to_float(packed);
    const Linear linear(packed);
    std::vector<float> row(9);
    for (Index o = 0; o < 35; ++o) {
      linear.row(o, row.data());
      EXPECT_TRUE(same_bits(row, std::span(want).subspan(static_cast<std::size_t>(o * 9), 9)));
    }
  }
}

TEST(Linear, QuantisedAndMisshapenWeightsAreRefused) {
  Tensor tensor = make_tensor({2, 32}, std::vector<float>(64));
  tensor.dtype = DType::q8;
  EXPECT_THROW(Linear{tensor}, Error);
  tensor.dtype = DType::q4;
  EXPECT_THROW(Linear{tensor}, Error);
  EXPECT_THROW(Linear{make_tensor({8}, std::vector<float>(8))}, Error);
}

}  // namespace
}  // namespace plait
