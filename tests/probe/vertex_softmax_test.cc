#include "tools/probe/vertex_softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/base/error.h"
#include "tests/testing.h"
#include "tools/twins.h"

namespace plait::probe {
namespace {

using testing::Numbers;

double average(const std::vector<double>& c, const std::vector<double>& s) {
  const double top = *std::max_element(s.begin(), s.end());
  double mass = 0, sum = 0;
  for (std::size_t j = 0; j < c.size(); ++j) {
    mass += std::exp(s[j] - top);
    sum += c[j] * std::exp(s[j] - top);
  }
  return sum / mass;
}

struct Box {
  std::vector<double> c, low, high;
};

Box random_box(Numbers& numbers, std::size_t n, double size, double width) {
  Box box;
  for (std::size_t j = 0; j < n; ++j) {
    box.c.push_back(numbers.normal());
    box.low.push_back(size * numbers.normal());
    box.high.push_back(box.low.back() + numbers.uniform(0, width));
  }
  return box;
}

double least_vertex(const Box& box) {
  double least = std::numeric_limits<double>::infinity();
  for (unsigned vertex = 0; vertex < 1u << box.c.size(); ++vertex) {
    std::vector<double> s;
    for (std::size_t j = 0; j < box.c.size(); ++j) s.push_back(vertex >> j & 1 ? box.high[j] : box.low[j]);
    least = std::min(least, average(box.c, s));
  }
  return least;
}

// softmax-family.md 2.17: 300 random cases, all 2^8 vertices, difference 0; here up to the rounding of the
// sums, which softmax_range widens by.
TEST(VertexSoftmax, IsTheLeastOfAllVertices) {
  Numbers numbers(1);
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE(round);
    const Box box = random_box(numbers, 8, round % 2 ? 1 : 30, round % 3 ? 2 : 20);
    const double expected = least_vertex(box);
    EXPECT_NEAR(least_average(box.c, box.low, box.high), expected, 1e-13);
    const Interval range = softmax_range(box.c, box.c, box.low, box.high);
    EXPECT_LE(range.low, expected);
    EXPECT_GT(range.low, expected - 1e-12);
  }
}

TEST(VertexSoftmax, APointIsItsOwnRange) {
  Numbers numbers(2);
  for (const std::size_t n : {1u, 2u, 7u, 64u}) {
    Box box = random_box(numbers, n, 5, 1);
    box.high = box.low;
    const double value = average(box.c, box.low);
    const Interval range = softmax_range(box.c, box.c, box.low, box.high);
    EXPECT_LE(range.low, value);
    EXPECT_GE(range.high, value);
    EXPECT_LT(range.high - range.low, 1e-12);
  }
}

// A key against another whose logit is between 0 and 1: sigmoid(-1) to sigmoid(0).
TEST(VertexSoftmax, TwoKeysAreASigmoid) {
  const std::vector<double> c = {1, 0}, low = {0, 0}, high = {0, 1};
  const Interval range = softmax_range(c, c, low, high);
  EXPECT_NEAR(range.low, 1 / (1 + std::exp(1)), 1e-14);
  EXPECT_NEAR(range.high, 0.5, 1e-14);
}

TEST(VertexSoftmax, ReachesBoxesWiderThanAnExponent) {
  const std::vector<double> c = {0, 1, 2}, low = {-3000, -3000, -1500}, high = {-1000, -800, 0};
  EXPECT_NEAR(softmax_range(c, c, low, high).low, 0, 1e-11);
  EXPECT_NEAR(softmax_range(c, c, low, high).high, 2, 1e-11);
  const double never = -std::numeric_limits<double>::infinity();
  EXPECT_NEAR(softmax_range(c, c, std::vector<double>{never, 0, 0}, std::vector<double>{never, 0, 0}).low,
              1.5, 1e-11);
}

TEST(VertexSoftmax, ValueIntervalsMoveItsEnds) {
  Numbers numbers(3);
  const Box box = random_box(numbers, 9, 2, 1);
  std::vector<double> lower = box.c, upper = box.c;
  for (double& c : lower) c -= 0.25;
  for (double& c : upper) c += 0.5;
  const Interval exact = softmax_range(box.c, box.c, box.low, box.high);
  const Interval range = softmax_range(lower, upper, box.low, box.high);
  EXPECT_NEAR(range.low, exact.low - 0.25, 1e-12);
  EXPECT_NEAR(range.high, exact.high + 0.5, 1e-12);
}

Json settings(const std::string& more) {
  Json all = Json::parse(R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "value_head_dim": 12,
                             "rope": {"theta": 10000}, "qk_norm": {"eps": 1e-6, "form": "plain"}})");
  all.update(Json::parse(more));
  return all;
}

Reading read(const Json& of_kind, Index tokens = 40) {
  const auto model = testing::random_model(testing::card_of_kind("softmax_attention", of_kind), 5);
  return read_attention(model, Numbers(7).tokens(tokens, 97), {}, {});
}

const char* const kForms[] = {
    "{}",
    R"({"window": 16, "sinks": 2, "gate": "sigmoid"})",
    R"({"normaliser": "sink_softmax", "gate": "sigmoid", "gate_granularity": "headwise"})",
    R"({"normaliser": "softmax_one", "score": ["scaled_dot", "scaled_signed_averaging"]})",
    R"({"score": ["scaled_dot", "alibi"]})",
};

TEST(VertexSoftmax, RowsAreTheLayersOutputs) {
  for (const char* form : kForms) {
    SCOPED_TRACE(form);
    const Reading reading = read(settings(form));
    const AttentionNode& node = reading.nodes[0];
    std::vector<double> rows;
    for (Index i = 0; i < reading.length(); ++i) {
      const OutputBounds row = bound_row(reading, node, {"bf16", 1e-9}, i);
      rows.insert(rows.end(), row.exact.begin(), row.exact.end());
    }
    const std::vector<double> fast(node.output.begin(), node.output.end());
    EXPECT_LT(group_error(rows, fast, reading.length()),
              exact_bound(*reading.model, node.node, reading.length()));
  }
}

TEST(VertexSoftmax, HoldsWhatEveryCacheGives) {
  for (const char* form : kForms)
    for (const char* cache : {"bf16", "f16", "q8"}) {
      SCOPED_TRACE(cat(form, " ", cache));
      const Reading reading = read(settings(form));
      for (Index i = 0; i < reading.length(); i += 3) {
        const OutputBounds row = bound_row(reading, reading.nodes[0], {cache, 0}, i);
        bool moved = false;
        for (std::size_t m = 0; m < row.exact.size(); ++m) {
          EXPECT_GE(row.rounded[m], row.low[m]);
          EXPECT_LE(row.rounded[m], row.high[m]);
          EXPECT_GE(row.exact[m], row.low[m]);
          EXPECT_LE(row.exact[m], row.high[m]);
          EXPECT_GE(row.low[m], row.hull_low[m] - 1e-11);
          EXPECT_LE(row.high[m], row.hull_high[m] + 1e-11);
          moved = moved || row.rounded[m] != row.exact[m];
        }
        EXPECT_TRUE(moved) << "the cache rounds nothing";
      }
    }
}

// Half the step, half the interval: bf16 keeps 8 bits, f16 11.
TEST(VertexSoftmax, ANarrowerCacheIsBoundedMoreTightly) {
  const Reading reading = read(settings("{}"));
  const auto width = [&](const char* cache) {
    const OutputBounds row = bound_row(reading, reading.nodes[0], {cache, 0}, 39);
    double sum = 0;
    for (std::size_t m = 0; m < row.low.size(); ++m) sum += row.high[m] - row.low[m];
    return sum;
  };
  EXPECT_NEAR(width("bf16") / width("f16"), 8, 0.2);
}

TEST(VertexSoftmax, RefusesWhatItCannotBound) {
  const auto refused = [](const char* form, const Uncertainty& uncertainty) {
    const Reading reading = read(settings(form), 8);
    EXPECT_THROW(bound_row(reading, reading.nodes[0], uncertainty, 7), Error) << form;
  };
  refused(R"({"score": ["scaled_dot", "sin_softmax"]})", {"bf16", 0});
  refused(R"({"normaliser": "sigmoid_attention"})", {"bf16", 0});
  refused(R"({"readout": "laser_attention"})", {"bf16", 0});
  refused(R"({"output_norm": {}})", {"", 0.01});
  refused(
      R"({"rope": null, "score": ["mlr_attention"], "mlr_attention": {"ranks": [8, 8], "block_size": 4}})",
      {"bf16", 0});
  const Reading sine = read(settings(R"({"score": ["scaled_dot", "sin_softmax"]})"), 8);
  EXPECT_NO_THROW(bound_row(sine, sine.nodes[0], {"", 0.01}, 7));
}

}  // namespace
}  // namespace plait::probe
