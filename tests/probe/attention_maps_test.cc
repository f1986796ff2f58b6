#include "tools/probe/attention_maps.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/error.h"
#include "runtime/run/recording.h"
#include "tests/testing.h"
#include "tools/plot/map_grid.h"

namespace plait::probe {
namespace {

using testing::Numbers;

TEST(AttentionMaps, UniformRows) {
  constexpr Index n = 5;
  std::vector<double> a(n * n);
  double entropy = 0, first = 0, distance = 0;
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j <= i; ++j) a[static_cast<std::size_t>(i * n + j)] = 1 / static_cast<double>(i + 1);
  for (Index i = 1; i < n; ++i) {
    entropy += std::log(static_cast<double>(i + 1)) / (n - 1);
    first += 1 / static_cast<double>(i + 1) / (n - 1);
    distance += static_cast<double>(i) / 2 / (n - 1);
  }
  const MapStatistics s = map_statistics(a, n, 1);
  EXPECT_NEAR(s.entropy, entropy, 1e-14);
  EXPECT_NEAR(s.first, first, 1e-14);
  EXPECT_NEAR(s.distance, distance, 1e-14);
  EXPECT_NEAR(s.effective_keys, 3.5, 1e-14);
}

// Of an encoder row 0 counts, and a key may stand behind its row.
TEST(AttentionMaps, RowsOfAnEncoder) {
  const MapStatistics s = map_statistics({0, 1, 0, 0, 1, 0, 1, 0, 0}, 3, 0);
  EXPECT_EQ(s.entropy, 0);
  EXPECT_EQ(s.distance, 1);
  EXPECT_DOUBLE_EQ(s.first, 1.0 / 3);
}

// Signed weights count by size, rows of another sum by share, rows of zeros not at all.
TEST(AttentionMaps, SignedAndEmptyRows) {
  const MapStatistics s = map_statistics({9, 0, 0, -2, 2, 0, 0, 0, 0}, 3, 1);
  EXPECT_NEAR(s.entropy, std::log(2), 1e-15);
  EXPECT_EQ(s.first, 0.5);
  EXPECT_EQ(s.distance, 0.5);
}

// The weights of the twin times its values are what the fast engine's heads put out, of a stream and of an
// encoder.
void expect_weights_times_values(const Json& card) {
  const auto model = testing::random_model(card, 3);
  const std::vector<Token> tokens = Numbers(4).tokens(50, 97);
  const Reading reading = read_attention(model, tokens, {}, {});
  ASSERT_EQ(reading.nodes.size(), 1u);
  const AttentionNode& node = reading.nodes[0];
  EXPECT_EQ(node.heads, (std::vector<Index>{0, 1, 2, 3}));

  RecordRequest request;
  request.nodes = {node.name};
  request.inner_rows = {Site::head};
  const auto heads = record(*model, std::vector<std::vector<Token>>{tokens}, request, {}).nodes.at(node.name);
  const std::vector<float>& fast = heads->inner_rows.at(Site::head);
  ASSERT_EQ(fast.size(), 50u * 4 * 12);
  std::vector<double> mine(fast.size(), 0);
  for (const Index head : node.heads) {
    const std::vector<double> weights = weights_of(node, head, 50), values = values_of(node, head, 50);
    for (Index i = 0; i < 50; ++i)
      for (Index j = 0; j < 50; ++j)
        for (Index c = 0; c < 12; ++c)
          mine[static_cast<std::size_t>((i * 4 + head) * 12 + c)] +=
              weights[static_cast<std::size_t>(i * 50 + j)] * values[static_cast<std::size_t>(j * 12 + c)];
  }
  const std::vector<double> wide(fast.begin(), fast.end());
  EXPECT_LT(group_error(mine, wide, 50), exact_bound(*model, node.node, 50));
}

TEST(AttentionMaps, WeightsTimesValuesAreTheHeads) {
  const char* const options[] = {R"({})", R"({"window": 16, "sinks": 2})",
                                 R"({"normaliser": "sigmoid_attention"})",
                                 R"({"normaliser": "sink_softmax"})",
                                 R"({"score": ["scaled_dot", "scalable_softmax", "forgetting_attention"]})"};
  for (const bool causal : {true, false})
    for (const char* more : options) {
      SCOPED_TRACE(cat(causal ? "stream " : "encoder ", more));
      Json settings = Json::parse(R"({"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "value_head_dim": 12,
                                      "rope": {"theta": 10000}})");
      settings.update(Json::parse(more));
      Json card = testing::card_of_kind("softmax_attention", settings);
      card["causal"] = causal;
      const bool forgets = settings.contains("score");  // what has been forgotten since is of streams only
      if (causal || !forgets) expect_weights_times_values(card);
    }
}

TEST(AttentionMaps, ChoosesNodesAndHeads) {
  const Json settings = Json::parse(R"({"num_heads": 4, "head_dim": 16})");
  const auto model = testing::random_model(testing::card_of_kind("softmax_attention", settings), 3);
  const std::vector<Token> tokens = {1, 2, 3};
  ReadingFlags flags;
  for (const char* name : {"0", "blocks.0.mixer", "blocks.0"}) {
    flags.layers = {name};
    EXPECT_EQ(read_attention(model, tokens, flags, {}).nodes.size(), 1u) << name;
  }
  for (const char* name : {"1", "blocks.1", "mixer", "blocks.0.mix"}) {
    flags.layers = {name};
    EXPECT_THROW(read_attention(model, tokens, flags, {}), UsageError) << name;
  }
  flags.layers.clear();
  flags.heads = {3, 1};
  EXPECT_EQ(read_attention(model, tokens, flags, {}).nodes[0].heads, (std::vector<Index>{3, 1}));
  flags.heads = {4};
  EXPECT_THROW(read_attention(model, tokens, flags, {}), UsageError);
  const Json delta = Json::parse(R"({"num_heads": 2, "head_dim": 16, "value_head_dim": 16})");
  EXPECT_THROW(read_attention(testing::random_model(testing::card_of_kind("gated_delta_net", delta), 3),
                              tokens, {}, {}),
               Error);
}

// Cells of equal shade that follow each other are one rectangle; faint ones are none.
TEST(MapGrid, DrawsRunsOfShades) {
  plot::MapGrid grid;
  grid.caption = {"name", "title", "description"};
  grid.size = 2;
  grid.maps = {{"map", "", {1, 1, 0.0001, 1}}};
  const std::string svg = draw(grid, 343).str();
  const auto first = svg.find("class=\"w6\" d=\"");
  ASSERT_NE(first, std::string::npos);
  const std::string path = svg.substr(first, svg.find("\"", first + 15) - first);
  EXPECT_EQ(std::count(path.begin(), path.end(), 'Z'), 2) << path;
  EXPECT_EQ(svg.find("class=\"w0\" d=\""), std::string::npos);
}

}  // namespace
}  // namespace plait::probe
