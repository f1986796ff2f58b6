// Every function of every table this machine can run: against its definition, and bit for bit against the
// portable one.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/kernels/kernels.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::Numbers;

std::vector<Isa> sets() {
  std::vector<Isa> all;
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
    if (machine_has(isa)) all.push_back(isa);
  return all;
}

class Tables : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& k_ = kernels(GetParam());
  const Kernels& portable_ = kernels(Isa::portable);
};

// Values are numbers of the same bits, or both not a number (whose payload no instruction set promises).
::testing::AssertionResult same(float a, float b) {
  if (std::isnan(a) && std::isnan(b)) return ::testing::AssertionSuccess();
  if (std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b))
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << a << " differs from " << b;
}

// Products: the chain is the definition.

float chain(const float* x, const float* w, Index ldw, Index depth, float start) {
  for (Index i = 0; i < depth; ++i) start = std::fma(x[i], w[i * ldw], start);
  return start;
}

TEST_P(Tables, PanelIsOneChainPerElement) {
  Numbers numbers(1);
  for (Index rows : {0, 1, 2, 3, 5, 11, 12, 13, 26})
    for (Index depth : {0, 1, 7, 40})
      for (Index cols : {1, 8, 15, 16, 17, 31, 32})
        for (Start start : {Start::zero, Start::present}) {
          const Index ldx = depth + 3, ldw = 37, ldy = 41;
          // One float past the start: no alignment is promised.
          const std::vector<float> x = numbers.normals(rows * ldx + 1), w = numbers.normals(depth * ldw + 33);
          std::vector<float> y = numbers.normals(rows * ldy + 1), before = y;
          k_.panel(rows, depth, cols, x.data() + 1, ldx, w.data() + 1, ldw, y.data() + 1, ldy, start);
          for (Index r = 0; r < rows; ++r)
            for (Index c = 0; c < ldy && 1 + r * ldy + c < static_cast<Index>(y.size()); ++c) {
              const auto at = static_cast<std::size_t>(1 + r * ldy + c);
              const float first = start == Start::zero ? 0 : before[at];
              const float want = c < cols ? chain(&x[static_cast<std::size_t>(1 + r * ldx)], w.data() + 1 + c,
                                                  ldw, depth, first)
                                          : before[at];
              ASSERT_TRUE(same(y[at], want))
                  << rows << " x " << depth << " x " << cols << " at " << r << ", " << c;
            }
        }
}

TEST_P(Tables, DecayedPanelRoundsTheProductFirst) {
  Numbers numbers(21);
  for (Index rows : {1, 11, 12, 25})
    for (Index depth : {0, 7})
      for (Index cols : {3, 16, 32}) {
        const std::vector<float> x = numbers.normals(rows * depth), w = numbers.normals(depth * 32),
                                 decay = numbers.normals(rows);
        std::vector<float> y = numbers.normals(rows * 32), before = y;
        k_.panel_decayed(rows, depth, cols, x.data(), depth, w.data(), 32, decay.data(), y.data(), 32);
        for (Index r = 0; r < rows; ++r)
          for (Index c = 0; c < 32; ++c) {
            const auto at = static_cast<std::size_t>(r * 32 + c);
            const float first = before[at] * decay[static_cast<std::size_t>(r)];
            const float want =
                c < cols ? chain(x.data() + r * depth, w.data() + c, 32, depth, first) : before[at];
            ASSERT_TRUE(same(y[at], want)) << rows << " x " << depth << " at " << r << ", " << c;
          }
      }
}

TEST_P(Tables, TriangularStopsAtTheRowsOwnLimit) {
  Numbers numbers(2);
  for (Index rows : {1, 2, 12, 13, 32})
    for (Index first : {0, 1, 9})
      for (Index cols : {5, 32}) {
        const Index depth = first + rows, ldx = depth + 1;
        std::vector<float> x = numbers.normals(rows * ldx), y = numbers.normals(rows * 32), before = y;
        const std::vector<float> w = numbers.normals(depth * 32);
        for (Index r = 0; r < rows; ++r)  // what lies past a row's limit must not be read into the sum
          for (Index i = first + r; i < ldx; ++i) x[static_cast<std::size_t>(r * ldx + i)] = std::nanf("");
        k_.panel_triangular(rows, first, cols, x.data(), ldx, w.data(), 32, y.data(), 32, Start::present);
        for (Index r = 0; r < rows; ++r)
          for (Index c = 0; c < cols; ++c) {
            const auto at = static_cast<std::size_t>(r * 32 + c);
            ASSERT_TRUE(same(y[at], chain(&x[static_cast<std::size_t>(r * ldx)],
                                          &w[static_cast<std::size_t>(c)], 32, first + r, before[at])));
          }
      }
}

TEST_P(Tables, CombineIsOneRowOfAnyWidth) {
  Numbers numbers(3);
  for (Index cols : {1, 16, 31, 64, 100, 128, 257})
    for (Index depth : {0, 1, 33}) {
      const std::vector<float> x = numbers.normals(depth + 1), w = numbers.normals((depth + 1) * cols);
      std::vector<float> y = numbers.normals(cols), before = y;
      k_.combine(depth, cols, x.data(), w.data(), cols, y.data(), Start::present);
      for (Index c = 0; c < cols; ++c)
        ASSERT_TRUE(
            same(y[static_cast<std::size_t>(c)], chain(x.data(), &w[static_cast<std::size_t>(c)], cols, depth,
                                                       before[static_cast<std::size_t>(c)])));
    }
}

TEST_P(Tables, Bf16RoundsToNearestEven) {
  std::vector<float> x;
  for (std::uint32_t high = 0; high < 65536; high += 7)
    for (std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      x.push_back(std::bit_cast<float>(high << 16 | low));
  std::vector<bf16> y(x.size());
  k_.to_bf16(x.data(), y.data(), static_cast<Index>(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i].bits, to_bf16(x[i]).bits) << x[i];
}

TEST_P(Tables, WideningIsExact) {
  std::vector<std::uint16_t> words(65536);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i);
  std::vector<bf16> brain(words.size());
  std::vector<f16> half(words.size());
  for (std::size_t i = 0; i < words.size(); ++i) brain[i].bits = half[i].bits = words[i];
  const auto bits_or_nan = [](float x) {
    return std::isnan(x) ? 0x7fc00000u : std::bit_cast<std::uint32_t>(x);
  };
  for (const Index count : {65536, 37, 5}) {
    std::vector<float> from_brain(words.size(), 7.0f), from_half(words.size(), 7.0f);
    k_.widen_bf16(brain.data() + 65536 - count, from_brain.data(), count);
    k_.widen_f16(half.data() + 65536 - count, from_half.data(), count);
    for (std::size_t i = 0; i < words.size(); ++i) {
      const auto at = static_cast<std::size_t>(65536 - count) + i;
      const bool inside = i < static_cast<std::size_t>(count);
      ASSERT_EQ(bits_or_nan(from_brain[i]), bits_or_nan(inside ? to_float(brain[at]) : 7.0f)) << i;
      ASSERT_EQ(bits_or_nan(from_half[i]), bits_or_nan(inside ? to_float(half[at]) : 7.0f)) << i;
    }
  }
}

// The pair product of one instruction rounds its own way; its error against double stays within two roundings
// a term.
TEST_P(Tables, FastPairsStayWithinRoundingOfTheExactSum) {
  Numbers numbers(4);
  const Index rows = 14, depth = 64;
  std::vector<bf16> x(static_cast<std::size_t>(rows * depth)), w(static_cast<std::size_t>(depth * 32));
  for (bf16& value : x) value = to_bf16(static_cast<float>(numbers.normal()));
  for (bf16& value : w) value = to_bf16(static_cast<float>(numbers.normal()));
  std::vector<float> y(static_cast<std::size_t>(rows * 32)), alone(32);
  k_.packed_bf16_fast(rows, depth, x.data(), depth, w.data(), y.data(), 32, Start::zero);
  for (Index r = 0; r < rows; ++r) {
    k_.packed_bf16_fast(1, depth, &x[static_cast<std::size_t>(r * depth)], depth, w.data(), alone.data(), 32,
                        Start::zero);
    for (Index c = 0; c < 32; ++c) {
      double sum = 0, size = 0;
      for (Index i = 0; i < depth; ++i) {
        const double term = double{to_float(x[static_cast<std::size_t>(r * depth + i)])} *
                            to_float(w[static_cast<std::size_t>(i / 2 * 64 + c * 2 + i % 2)]);
        sum += term;
        size += std::abs(term);
      }
      const float got = y[static_cast<std::size_t>(r * 32 + c)];
      EXPECT_LE(std::abs(got - sum), 2 * depth * 0x1p-24 * size);
      EXPECT_TRUE(same(got, alone[static_cast<std::size_t>(c)])) << "a row alone and in a tile of " << rows;
    }
  }
}

// Sums: sixteen lanes, one tree.

template <class T = float, class Step>
T lanes_then_tree(Index n, Step step) {
  T lanes[16] = {};
  for (Index i = 0; i < n; ++i) lanes[i % 16] = step(i, lanes[i % 16]);
  for (int width = 8; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  return lanes[0];
}

TEST_P(Tables, SumsHaveSixteenLanesAndOneTree) {
  Numbers numbers(5);
  for (Index n = 0; n <= 70; ++n) {
    const std::vector<float> a = numbers.normals(n + 1), b = numbers.normals(n + 1);
    const float *x = a.data() + 1, *y = b.data() + 1;
    EXPECT_TRUE(same(k_.sum(x, n), lanes_then_tree(n, [&](Index i, float s) { return s + x[i]; })));
    EXPECT_TRUE(same(k_.sum_squares(x, n),
                     lanes_then_tree(n, [&](Index i, float s) { return std::fma(x[i], x[i], s); })));
    EXPECT_TRUE(
        same(k_.dot(x, y, n), lanes_then_tree(n, [&](Index i, float s) { return std::fma(x[i], y[i], s); })));
    float best = -std::numeric_limits<float>::infinity();
    for (Index i = 0; i < n; ++i) best = std::max(best, x[i]);
    EXPECT_TRUE(same(k_.maximum(x, n), best));
    for (Index begin : {Index{0}, n / 3}) {
      float lanes[16] = {};
      const Index cut = (begin + n) / 2;
      k_.add_to_lanes(x, begin, cut, lanes);
      k_.add_to_lanes(x, cut, n, lanes);
      EXPECT_TRUE(same(k_.sum_lanes(lanes),
                       lanes_then_tree(n, [&](Index i, float s) { return i < begin ? s : s + x[i]; })));
      double sums[16] = {}, squares[16] = {};
      k_.add_moments(x, begin, cut, sums, squares);
      k_.add_moments(x, cut, n, sums, squares);
      const auto wide = [&](Index i) { return static_cast<double>(x[i]); };
      EXPECT_EQ(k_.sum_lanes_f64(sums),
                lanes_then_tree<double>(n, [&](Index i, double s) { return i < begin ? s : s + wide(i); }));
      EXPECT_EQ(k_.sum_lanes_f64(squares), lanes_then_tree<double>(n, [&](Index i, double s) {
                  return i < begin ? s : s + wide(i) * wide(i);
                }));
    }
  }
}

// Products that underflow leave -0 in a lane, and a short last group must not turn the lanes it does not
// reach into +0.
TEST_P(Tables, SumsLeaveLanesPastTheEndAlone) {
  const std::vector<float> x(17, 1e-30f), y(17, -1e-30f);
  EXPECT_TRUE(same(k_.dot(x.data(), y.data(), 17),
                   lanes_then_tree(17, [](Index, float s) { return std::fma(1e-30f, -1e-30f, s); })));
}

// Elementary functions.

std::vector<float> samples() {
  std::vector<float> x = {0.0f,
                          -0.0f,
                          1.0f,
                          -1.0f,
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(),
                          std::nanf(""),
                          std::numeric_limits<float>::denorm_min(),
                          -std::numeric_limits<float>::denorm_min(),
                          1e-40f,
                          std::numeric_limits<float>::min(),
                          std::numeric_limits<float>::max(),
                          std::numeric_limits<float>::lowest(),
                          88.72f,
                          88.73f,
                          -87.4f,
                          -103.9f,
                          -104.1f,
                          20.0f,
                          20.000002f,
                          9.9f,
                          10.1f};
  for (std::uint32_t word = 0; word < 0x7f800000u; word += 77777u)  // every exponent, both signs
    for (std::uint32_t sign : {0u, 0x80000000u}) x.push_back(std::bit_cast<float>(word | sign));
  Numbers numbers(6);
  for (int i = 0; i < 20000; ++i) x.push_back(static_cast<float>(numbers.uniform(-30, 30)));
  return x;
}

struct Function {
  const char* name;
  Kernels::Map Kernels::*map;
  double (*truth)(double);
  // |error| <= ulps * 2^-23 * |truth| + absolute. The absolute part covers results below the normal range and
  // functions that are differences of numbers near one.
  double ulps, absolute;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return x > 20 ? x : std::log1p(std::exp(x)); }

const Function kFunctions[] = {
    {"exp", &Kernels::exp, [](double x) { return std::exp(x); }, 1.5, 0x1p-149},
    {"log", &Kernels::log, [](double x) { return std::log(x); }, 1.5, 0},
    {"log1p", &Kernels::log1p, [](double x) { return std::log1p(x); }, 3, 0x1p-149},
    {"sigmoid", &Kernels::sigmoid, sigmoid, 3, 0x1p-149},
    {"silu", &Kernels::silu, [](double x) { return x * sigmoid(x); }, 4, 0x1p-140},
    {"softplus", &Kernels::softplus, softplus, 3, 0x1p-149},
    {"log_sigmoid", &Kernels::log_sigmoid,
     [](double x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }, 3, 0x1p-149},
    {"tanh", &Kernels::tanh, [](double x) { return std::tanh(x); }, 4, 0x1p-149},
    {"normal_cdf", &Kernels::normal_cdf, [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }, 6,
     0x1p-145},
    {"gelu", &Kernels::gelu, [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }, 6, 0x1p-145},
    {"gelu_tanh", &Kernels::gelu_tanh,
     [](double x) { return x * sigmoid(2 * 0.79788456 * (x + 0.044715 * x * x * x)); }, 8, 4e-7},
    {"relu", &Kernels::relu, [](double x) { return std::max(0.0, x); }, 0, 0},
    {"elu_plus_one", &Kernels::elu_plus_one, [](double x) { return x < 0 ? std::exp(x) : x + 1; }, 1.5,
     0x1p-149},
    {"square", &Kernels::square, [](double x) { return x * x; }, 0.5, 0x1p-149},
    {"reciprocal", &Kernels::reciprocal, [](double x) { return 1 / x; }, 0.5, 0x1p-149},
    {"sqrt", &Kernels::sqrt, [](double x) { return std::sqrt(x); }, 0.5, 0},
};

TEST_P(Tables, FunctionsMeetTheirErrorBounds) {
  const std::vector<float> x = samples();
  std::vector<float> y(x.size());
  for (const Function& f : kFunctions) {
    (k_.*f.map)(x.data(), y.data(), static_cast<Index>(x.size()));
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = f.truth(x[i]);
      if (std::isnan(x[i])) {
        EXPECT_TRUE(std::isnan(y[i])) << f.name << " of a not-a-number";
      } else if (!std::isfinite(x[i]) || std::isnan(want) ||
                 std::abs(want) > std::numeric_limits<float>::max()) {
        // An infinite argument's value is pinned by the bits of the portable table only.
        if (std::isfinite(x[i])) {
          EXPECT_TRUE(same(y[i], static_cast<float>(want))) << f.name << "(" << x[i] << ")";
        }
      } else {
        const double error = std::abs(y[i] - want), allowed = f.ulps * 0x1p-23 * std::abs(want) + f.absolute;
        worst = std::max(worst, error / std::max(allowed, 1e-300));
        ASSERT_LE(error, allowed) << f.name << "(" << x[i] << ") = " << y[i] << ", not " << want;
      }
    }
    RecordProperty(f.name, std::to_string(worst));
  }
}

TEST_P(Tables, FunctionsWorkInPlaceAndWriteNothingPastTheEnd) {
  const std::vector<float> x = Numbers(11).normals(48);
  for (const Function& f : kFunctions)
    for (Index n = 0; n <= 33; ++n) {
      std::vector<float> in_place = x, apart(x.size(), 7.0f);
      (k_.*f.map)(x.data(), apart.data(), n);
      (k_.*f.map)(in_place.data(), in_place.data(), n);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const bool inside = static_cast<Index>(i) < n;
        ASSERT_TRUE(same(in_place[i], inside ? apart[i] : x[i])) << f.name;
        ASSERT_TRUE(inside || apart[i] == 7.0f) << f.name;
      }
    }
}

TEST_P(Tables, FunctionsHaveTheBitsOfThePortableTable) {
  const std::vector<float> x = samples();
  std::vector<float> y(x.size()), want(x.size());
  for (const Function& f : kFunctions) {
    (k_.*f.map)(x.data(), y.data(), static_cast<Index>(x.size()));
    (portable_.*f.map)(x.data(), want.data(), static_cast<Index>(x.size()));
    for (std::size_t i = 0; i < x.size(); ++i)
      ASSERT_TRUE(same(y[i], want[i])) << f.name << "(" << x[i] << ")";
  }
}

// A value's place in a row does not matter, nor the row's length.
TEST_P(Tables, TailsComputeWhatFullLanesCompute) {
  const std::vector<float> x = Numbers(7).normals(67, 5);
  for (const Function& f : kFunctions) {
    std::vector<float> whole(67);
    (k_.*f.map)(x.data(), whole.data(), 67);
    for (Index n = 0; n <= 34; ++n)
      for (Index first : {0, 1, 5}) {
        std::vector<float> part(40, 7.0f);
        (k_.*f.map)(x.data() + first, part.data(), n);
        for (Index i = 0; i < n; ++i)
          ASSERT_TRUE(same(part[static_cast<std::size_t>(i)], whole[static_cast<std::size_t>(first + i)]))
              << f.name;
        for (std::size_t i = static_cast<std::size_t>(n); i < part.size(); ++i)
          ASSERT_EQ(part[i], 7.0f) << f.name << " wrote past its end";
      }
  }
}

TEST_P(Tables, ArithmeticRowsHaveTheBitsOfScalarArithmetic) {
  Numbers numbers(8);
  for (Index n : {0, 1, 15, 16, 17, 50}) {
    const std::vector<float> x = numbers.normals(n), y = numbers.normals(n), z = numbers.normals(n);
    const auto check = [&](const char* name, const std::function<void(float*)>& run,
                           const std::function<float(std::size_t)>& want) {
      std::vector<float> out = z;
      run(out.data());
      for (std::size_t i = 0; i < out.size(); ++i) ASSERT_TRUE(same(out[i], want(i))) << name;
    };
    check(
        "add", [&](float* o) { k_.add(x.data(), y.data(), o, n); }, [&](auto i) { return x[i] + y[i]; });
    check(
        "subtract", [&](float* o) { k_.subtract(x.data(), y.data(), o, n); },
        [&](auto i) { return x[i] - y[i]; });
    check(
        "multiply", [&](float* o) { k_.multiply(x.data(), y.data(), o, n); },
        [&](auto i) { return x[i] * y[i]; });
    check(
        "divide", [&](float* o) { k_.divide(x.data(), y.data(), o, n); },
        [&](auto i) { return x[i] / y[i]; });
    check(
        "minimum", [&](float* o) { k_.minimum(x.data(), y.data(), o, n); },
        [&](auto i) { return std::min(x[i], y[i]); });
    check(
        "scale", [&](float* o) { k_.scale(x.data(), 1.7f, o, n); }, [&](auto i) { return x[i] * 1.7f; });
    check(
        "add_scalar", [&](float* o) { k_.add_scalar(x.data(), 1.7f, o, n); },
        [&](auto i) { return x[i] + 1.7f; });
    check(
        "clamp", [&](float* o) { k_.clamp(x.data(), -0.5f, 0.25f, o, n); },
        [&](auto i) { return std::clamp(x[i], -0.5f, 0.25f); });
    check(
        "add_scaled", [&](float* o) { k_.add_scaled(1.7f, x.data(), o, n); },
        [&](auto i) { return std::fma(1.7f, x[i], z[i]); });
    check(
        "multiply_add", [&](float* o) { k_.multiply_add(x.data(), y.data(), o, n); },
        [&](auto i) { return std::fma(x[i], y[i], z[i]); });
  }
}

TEST_P(Tables, DecaysComeFromDifferencesInDouble) {
  Numbers numbers(9);
  std::vector<double> b(37);
  std::vector<float> y(37), difference(37), want(37);
  for (double& value : b) value = -1e6 + numbers.uniform(-20, 0);
  k_.exp_difference(b.data(), b[0], y.data(), 37);
  for (std::size_t i = 0; i < b.size(); ++i) difference[i] = static_cast<float>(b[i] - b[0]);
  k_.exp(difference.data(), want.data(), 37);
  for (std::size_t i = 0; i < b.size(); ++i) EXPECT_TRUE(same(y[i], want[i]));
  k_.exp_difference_from(b[0], b.data(), y.data(), 37);
  for (std::size_t i = 0; i < b.size(); ++i) difference[i] = static_cast<float>(b[0] - b[i]);
  k_.exp(difference.data(), want.data(), 37);
  for (std::size_t i = 0; i < b.size(); ++i) EXPECT_TRUE(same(y[i], want[i]));
  k_.exp_minus(want.data(), 0.3f, y.data(), 37);
  for (float& value : want) value -= 0.3f;
  k_.exp(want.data(), difference.data(), 37);
  for (std::size_t i = 0; i < b.size(); ++i) EXPECT_TRUE(same(y[i], difference[i]));
}

TEST_P(Tables, NumbersInDoubleAreAddedInDouble) {
  Numbers numbers(11);
  std::vector<double> x(37);
  std::vector<float> y(37), before(37);
  for (double& value : x) value = -1e6 + numbers.uniform(-20, 0);
  for (float& value : before) value = static_cast<float>(numbers.uniform(-20, 20));
  for (const double slope : {1.0, -1.0}) {
    y = before;
    k_.add_f64(-slope * x[0], slope, x.data(), y.data(), 37);
    for (std::size_t i = 0; i < x.size(); ++i)
      EXPECT_TRUE(same(y[i], static_cast<float>(before[i] + slope * (x[i] - x[0]))));
  }
}

TEST_P(Tables, SinesOfVeryLargeAngles) {
  Numbers numbers(10);
  std::vector<double> angle = {0,  1e-20,  0.5,           1.5707963267948966, 3.141592653589793,
                               -2, 0x1p40, -0x1p40 + 0.25};
  for (int i = 0; i < 3000; ++i)
    angle.push_back(std::ldexp(numbers.uniform(-1, 1), static_cast<int>(numbers.bits() % 40)));
  std::vector<float> s(angle.size()), c(angle.size()), ps(angle.size()), pc(angle.size());
  k_.sin_cos(angle.data(), s.data(), c.data(), static_cast<Index>(angle.size()));
  portable_.sin_cos(angle.data(), ps.data(), pc.data(), static_cast<Index>(angle.size()));
  for (std::size_t i = 0; i < angle.size(); ++i) {
    // Half an ulp of the narrowing; the f64 part adds less than 1e-12 at the largest angle.
    EXPECT_NEAR(s[i], std::sin(angle[i]), 0x1p-24 * std::abs(std::sin(angle[i])) * 1.01 + 1e-11) << angle[i];
    EXPECT_NEAR(c[i], std::cos(angle[i]), 0x1p-24 * std::abs(std::cos(angle[i])) * 1.01 + 1e-11) << angle[i];
    EXPECT_TRUE(same(s[i], ps[i]));
    EXPECT_TRUE(same(c[i], pc[i]));
  }
}

TEST_P(Tables, FirLeavesOutAbsentRows) {
  Numbers numbers(11);
  for (Index channels : {1, 16, 45}) {
    const std::vector<float> a = numbers.normals(channels), b = numbers.normals(channels),
                             taps = numbers.normals(3 * channels), bias = numbers.normals(channels);
    const float* rows[3] = {a.data(), nullptr, b.data()};
    std::vector<float> y(static_cast<std::size_t>(channels));
    for (const float* start : {static_cast<const float*>(nullptr), bias.data()}) {
      k_.fir(3, rows, taps.data(), channels, start, y.data(), channels);
      for (std::size_t i = 0; i < y.size(); ++i) {
        float want = std::fma(taps[i], a[i], start ? bias[i] : 0.0f);
        want = std::fma(taps[2 * y.size() + i], b[i], want);
        EXPECT_TRUE(same(y[i], want));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, Tables, ::testing::ValuesIn(sets()),
                         [](const auto& set) { return std::string(name_of(set.param)); });

// The choice is made once per process, so each case has a process of its own.
void exit_by_table(const char* named) {
  setenv("PLAIT_ISA", named, 1);
  try {
    std::exit(kernels().isa == parse_isa(named) ? 0 : 1);
  } catch (const Error&) {
    std::exit(2);
  }
}

TEST(DispatchDeathTest, TheEnvironmentOverrides) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const Isa isa : sets()) EXPECT_EXIT(exit_by_table(name_of(isa)), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(exit_by_table("sse9"), ::testing::ExitedWithCode(2), "");
}

TEST(Dispatch, NamesAndRefusals) {
  EXPECT_EQ(kernels(Isa::portable).isa, Isa::portable);
  EXPECT_STREQ(kernels(Isa::portable).name, "portable");
  EXPECT_NE(resolve(Isa::automatic), Isa::automatic);
  EXPECT_THROW(parse_isa("sse9"), Error);
  for (Isa isa : {Isa::avx2, Isa::avx512})
    if (!machine_has(isa)) {
      EXPECT_THROW(kernels(isa), Error);
    }
}

}  // namespace
}  // namespace plait
