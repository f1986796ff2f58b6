// Random weights: distribution, packing, and that a value depends on seed, path and element alone.
#include "weights/initialise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/panel.h"
#include "tests/files.h"
#include "tests/testing.h"
#include "weights/model_file.h"

namespace plait {
namespace {

using testing::Folder;
using testing::sentence;

std::vector<float> draw(Init init, const Shape& shape, bool matrix = false, std::uint64_t seed = 1,
                        const std::string& path = "/a/w", DType dtype = DType::f32) {
  return to_float(random_tensor({"w", shape, init, "", matrix}, path, seed, dtype));
}

struct Moments {
  double mean = 0, deviation = 0, low = INFINITY, high = -INFINITY;
};
Moments moments(const std::vector<float>& values) {
  Moments m;
  for (const double v : values) m.mean += v, m.low = std::min(m.low, v), m.high = std::max(m.high, v);
  m.mean /= static_cast<double>(values.size());
  for (const double v : values) m.deviation += (v - m.mean) * (v - m.mean);
  m.deviation = std::sqrt(m.deviation / static_cast<double>(values.size()));
  return m;
}

// Mean and deviation of n draws stay within five standard errors: s / sqrt(n) and s / sqrt(2 n).
void expect_normal(const std::vector<float>& values, double mean, double deviation) {
  const Moments m = moments(values);
  const double n = static_cast<double>(values.size());
  EXPECT_NEAR(m.mean, mean, 5 * deviation / std::sqrt(n));
  EXPECT_NEAR(m.deviation, deviation, 5 * deviation / std::sqrt(2 * n));
  EXPECT_GT(m.high, mean + 3 * deviation);
  EXPECT_LT(m.low, mean - 3 * deviation);
}

TEST(Initialise, DrawsWhatEachInitNames) {
  const Shape shape = {400, 100};
  expect_normal(draw(Init::normal, shape), 0, 0.1);
  expect_normal(draw(Init::unit_normal, shape), 0, 1);
  expect_normal(draw(Init::embedding, shape), 0, 0.02);
  expect_normal(draw(Init::small, shape), 0, 0.02);
  expect_normal(draw(Init::around_one, shape), 1, 0.1);
  EXPECT_EQ(draw(Init::zeros, {7}), std::vector<float>(7, 0.0f));
  EXPECT_EQ(draw(Init::ones, {7}), std::vector<float>(7, 1.0f));
  Moments m = moments(draw(Init::taps, {10000, 4}));
  EXPECT_NEAR(m.low, -0.5, 1e-3);
  EXPECT_NEAR(m.high, 0.5, 1e-3);
  m = moments(
      draw(Init::decay_log, {40000}));  // exp of it is uniform on (1, 16): the extremes are within 15 / n
  EXPECT_NEAR(std::exp(m.low), 1, 0.01);
  EXPECT_NEAR(std::exp(m.high), 16, 0.01);
  m = moments(draw(Init::time_step, {40000}));  // softplus of it is log-uniform on (1e-3, 1e-1)
  EXPECT_NEAR(std::log1p(std::exp(m.low)), 1e-3, 1e-5);
  EXPECT_NEAR(std::log1p(std::exp(m.high)), 1e-1, 1e-3);
}

TEST(Initialise, NeighboursAreUncorrelated) {
  const std::vector<float> x = draw(Init::normal, {200, 200});
  for (const std::size_t lag : {1u, 2u, 3u, 200u}) {
    double sum = 0;
    for (std::size_t i = 0; i + lag < x.size(); ++i) sum += x[i] * x[i + lag] * 200.0;
    EXPECT_LT(std::abs(sum / 40000), 5 / std::sqrt(40000.0)) << lag;
  }
}

TEST(Initialise, PackingAndDtypeDoNotChangeTheValues) {
  const std::vector<float> rows = draw(Init::normal, {77, 45});
  EXPECT_TRUE(testing::same_bits(draw(Init::normal, {77, 45}, true), rows));
  std::vector<float> rounded;
  for (const float v : rows) rounded.push_back(to_float(to_bf16(v)));
  EXPECT_TRUE(testing::same_bits(draw(Init::normal, {77, 45}, true, 1, "/a/w", DType::bf16), rounded));
  const Tensor packed = random_tensor({"w", {77, 45}, Init::normal, "", true}, "/a/w", 1, DType::f32);
  const Tensor want = pack(make_tensor({77, 45}, rows), DType::f32);
  EXPECT_EQ(std::memcmp(packed.data, want.data, want.bytes), 0);  // padding included
}

TEST(Initialise, SeedAndPathMatter) {
  const auto x = draw(Init::normal, {8, 8});
  EXPECT_TRUE(testing::same_bits(draw(Init::normal, {8, 8}), x));
  EXPECT_FALSE(testing::same_bits(draw(Init::normal, {8, 8}, false, 2), x));
  EXPECT_FALSE(testing::same_bits(draw(Init::normal, {8, 8}, false, 1, "/b/w"), x));
}

TEST(Initialise, WritesAModelThatLoads) {
  const Folder folder;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    double last = 0;
    const auto progress = [&](double fraction) {
      EXPECT_GT(fraction, last);
      last = fraction;
    };
    const std::string digest = write_random_model(testing::small_card(), folder / "m.h5", 4, dtype, progress);
    EXPECT_EQ(last, 1);
    const auto model = load(folder / "m.h5");
    EXPECT_EQ(model->digest(), digest);
    EXPECT_NO_THROW(check_digest(folder / "m.h5"));
    const Tensor& up = model->data().tensors.at("blocks.0.mixer").at("up");
    EXPECT_EQ(up.dtype, dtype);
    EXPECT_EQ(up.layout, Layout::panels);
    Stream stream(model);
    for (const float v : stream.feed({1, 2, 3})) EXPECT_TRUE(std::isfinite(v));
  }
}

TEST(Initialise, BadCardsLeaveNothing) {
  const Folder folder;
  Json card = testing::small_card();
  card["graph"][2]["kind"] = "no_such_kind";
  EXPECT_NE(sentence([&] { write_random_model(card, folder / "m.h5", 1, DType::f32); }).find("no_such_kind"),
            std::string::npos);
  EXPECT_NE(
      sentence([&] { write_random_model(testing::small_card(), folder / "m.h5", 1, DType::q8); }).find("q8"),
      std::string::npos);
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace plait
