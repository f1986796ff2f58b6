// Probes against numbers made by their papers' authors' code (make_goldens.py, probes/).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>

#include "tools/probe/attention_sinks.h"
#include "tools/probe/vertex_softmax.h"

namespace plait::probe {
namespace {

using Row = std::vector<double>;

Json cases(const std::string& name) {
  std::ifstream file(PLAIT_SOURCE_DIR "/tests/golden/probes/" + name + ".json");
  return Json::parse(file).at("cases");
}

TEST(ProbeGoldens, VertexSoftmax) {
  for (const Json& box : cases("vertex_softmax")) {
    const Json &low = box.at("low"), &high = box.at("high");
    for (std::size_t query = 0; query < low.size(); ++query)
      for (std::size_t channel = 0; channel < box.at("value_low").size(); ++channel) {
        const Interval range =
            softmax_range(box.at("value_low")[channel].get<Row>(), box.at("value_high")[channel].get<Row>(),
                          low[query].get<Row>(), high[query].get<Row>());
        const double least = box.at("least")[query][channel], greatest = box.at("greatest")[query][channel];
        // It goes outward by the roundings of its sums, which are below 1e-12 for these boxes.
        EXPECT_NEAR(range.low, least, 1e-12);
        EXPECT_NEAR(range.high, greatest, 1e-12);
        EXPECT_LE(range.low, least);
        EXPECT_GE(range.high, greatest);
      }
  }
}

// Both sides are float64: sums of at most 132 terms and an eigenvalue of an 11 x 11 matrix.
TEST(ProbeGoldens, AttentionSinks) {
  for (const Json& head : cases("attention_sinks")) {
    const Row weights = head.at("weights"), values = head.at("values"), outputs = head.at("outputs");
    Index tokens = 1;
    while (tokens * tokens < static_cast<Index>(weights.size())) ++tokens;
    const SinkStatistics s = sink_statistics(weights, values, outputs, tokens, 0, false);
    const auto expect = [&](double value, const char* name) {
      const double theirs = head.at(name);
      EXPECT_NEAR(value, theirs, 1e-13 * std::abs(theirs)) << name;
    };
    EXPECT_EQ(s.sink, head.at("sink").get<Index>());
    expect(s.mass, "mass");
    expect(s.least, "min_a");
    expect(s.routed, "routed_frac");
    expect(s.ratio_head, "ratio_head");
    expect(s.ratio_out, "ratio_out");
    expect(s.stable_rank, "stable_rank");
    const std::map<std::string, SinkKind> kinds = {{"none", SinkKind::none},
                                                   {"nop", SinkKind::nop},
                                                   {"broadcast", SinkKind::broadcast},
                                                   {"other", SinkKind::other}};
    EXPECT_EQ(sink_kind(s), kinds.at(head.at("kind")));

    const Index width = static_cast<Index>(outputs.size()) / tokens;
    Row update(outputs.size());  // A u
    for (Index i = 0; i < tokens; ++i)
      for (Index j = 0; j < tokens; ++j)
        for (Index c = 0; c < width; ++c) {
          const auto at = [&](Index row, Index column, Index columns) {
            return static_cast<std::size_t>(row * columns + column);
          };
          update[at(i, c, width)] += weights[at(i, j, tokens)] * outputs[at(j, c, width)];
        }
    expect(shared_energy(update, tokens), "shared_energy");
  }
}

TEST(ProbeGoldens, SinkCounts) {
  for (const Json& rule : cases("sink_counts")) {
    std::vector<SinkStatistics> heads(rule.at("min_a").size());
    for (std::size_t h = 0; h < heads.size(); ++h) {
      heads[h].routed = rule.at("routed_frac")[h];
      heads[h].least = rule.at("min_a")[h];
      heads[h].ratio_head = rule.at("ratio_head")[h];
    }
    const Json& eps = rule.at("eps");
    const SinkCounts counts = count_sinks(heads, eps.is_null() ? std::nullopt : std::optional<double>(eps));
    EXPECT_EQ(static_cast<double>(counts.sinks), rule.at("sinks")) << eps;
    EXPECT_EQ(static_cast<double>(counts.nops), rule.at("nop")) << eps;
    EXPECT_EQ(static_cast<double>(counts.broadcasts), rule.at("broadcast")) << eps;
    EXPECT_GT(counts.nops, 0) << "the rules are told apart";
  }
}

}  // namespace
}  // namespace plait::probe
