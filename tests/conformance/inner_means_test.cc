// Every kind with an inner site that has a mean: what it shows to a watch is what the edit of that site
// replaces, and a recording averages it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "layers/reference/delta_rule.h"
#include "runtime/base/error.h"
#include "runtime/run/recording.h"
#include "tests/testing.h"
#include "tools/twins.h"

namespace plait {
namespace {

using testing::all_logits;
using testing::Numbers;
using testing::same_bits;

constexpr Index kTokens = 70;

struct Case {
  std::string kind, settings;
};

std::string name_of_case(const ::testing::TestParamInfo<Case>& info) {
  return info.param.kind + "_" + std::to_string(info.index);
}

// The operator that puts a mean in the place of a site's values; null if the site has none.
const Operator* mean_of(const SiteSpec& spec) {
  static constexpr Operator kConstant = Operator::constant, kMean = Operator::mean;
  for (const Operator* op : {&kConstant, &kMean})
    if (std::find(spec.operators.begin(), spec.operators.end(), *op) != spec.operators.end()) return op;
  return nullptr;
}

Index columns_of(const SiteSpec& spec) { return spec.heads * std::max<Index>(1, spec.channels); }

// Rows of one site, one after the other.
struct Rows {
  Index columns = 0;
  std::vector<float> values;
  std::span<const float> row(Index r) const {
    return std::span(values).subspan(static_cast<std::size_t>(r * columns),
                                     static_cast<std::size_t>(columns));
  }
};

class Keeper final : public InnerWatch {
 public:
  void see(Site site, View<const float> values) override {
    Rows& kept = rows[site];
    kept.columns = values.cols;
    for (Index r = 0; r < values.rows; ++r)
      kept.values.insert(kept.values.end(), values.row(r), values.row(r) + values.cols);
  }
  std::map<Site, Rows> rows;
};

std::shared_ptr<const Model> model_of(const Case& example) {
  return testing::random_model(testing::card_of_kind(example.kind, Json::parse(example.settings)), 7);
}

// The examples whose layer has a site with a mean.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [key, kind] : Registry::builtin().kinds())
    for (const std::string& settings : kind.examples) {
      if (kind.graphs == Kind::Graphs::encoder) continue;
      const auto model = model_of({key, settings});
      for (int n = 0; n < model->node_count(); ++n) {
        const auto sites = model->layer(n).sites();
        if (std::any_of(sites.begin(), sites.end(), mean_of)) all.push_back({key, settings});
      }
    }
  return all;
}

std::vector<Case> delta_rules() {
  std::vector<Case> all = cases();
  std::erase_if(all, [](const Case& example) { return example.kind.find("delta_net") == std::string::npos; });
  return all;
}

class InnerMeans : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    model_ = model_of(GetParam());
    tokens_ = Numbers(11).tokens(kTokens, model_->card().vocab);
    for (int n = 0; n < model_->node_count(); ++n)
      if (model_->graph().nodes[static_cast<std::size_t>(n)].kind == GetParam().kind) node_ = n;
    ASSERT_GE(node_, 0);
    for (const SiteSpec& spec : model_->layer(node_).sites())
      if (mean_of(spec)) measured_.push_back(spec);
  }

  std::map<Site, Rows> shown(std::span<const Token> tokens, Index row_block) const {
    Keeper keeper;
    Sequence sequence(*model_);
    const Item item{&sequence, tokens, Want::none};
    RunOptions options;
    options.row_block = row_block;
    options.watches = [&](int node) { return node == node_ ? &keeper : nullptr; };
    run_batch(*model_, {&item, 1}, options, {});
    return keeper.rows;
  }

  References record_of(const std::vector<std::vector<Token>>& texts) const {
    RecordRequest request;
    for (const SiteSpec& spec : measured_) request.inner.push_back(spec.site);
    return record_of(texts, request);
  }

  References record_of(const std::vector<std::vector<Token>>& texts, const RecordRequest& request) const {
    return {{"r", std::make_shared<const Recording>(record(*model_, texts, request, {}))}};
  }

  Edit edit_of(const SiteSpec& spec) const {
    Edit edit;
    edit.node = model_->graph().nodes[static_cast<std::size_t>(node_)].name;
    edit.site = spec.site;
    edit.op = *mean_of(spec);
    return edit;
  }

  std::vector<float> logits(std::span<const Token> tokens, const EditList& edits,
                            const References& references = {}) const {
    Sequence sequence(*model_);
    if (!edits.empty()) sequence.plan = std::make_shared<const EditPlan>(*model_, edits, references);
    const Item item{&sequence, tokens, Want::all};
    std::vector<float> all;
    run_batch(*model_, {&item, 1}, {}, [&](std::size_t, Index, std::span<const float> row) {
      all.insert(all.end(), row.begin(), row.end());
    });
    return all;
  }

  std::shared_ptr<const Model> model_;
  int node_ = -1;
  std::vector<SiteSpec> measured_;
  std::vector<Token> tokens_;
};

TEST_P(InnerMeans, WhatIsShownIsWhatTheEditReplaces) {
  const std::map<Site, Rows> rows = shown(tokens_, 512);
  const std::vector<float> clean = logits(tokens_, {});
  for (const SiteSpec& spec : measured_) {
    SCOPED_TRACE(name_of(spec.site));
    const auto found = rows.find(spec.site);
    ASSERT_NE(found, rows.end());
    ASSERT_EQ(found->second.columns, columns_of(spec));
    ASSERT_EQ(static_cast<Index>(found->second.values.size()), kTokens * found->second.columns);
    for (const Index at : {0, 21, 40}) {
      Edit same = edit_of(spec);
      same.begin = at;
      same.end = at + 1;
      const auto row = found->second.row(at);
      same.values.assign(row.begin(), row.end());
      EXPECT_TRUE(same_bits(logits(tokens_, {same}), clean)) << "its own row at " << at;
      if (at == 0) continue;  // where nothing is before a token, some kinds divide its strength out
      Edit other = same;
      for (double& value : other.values) value = spec.site == Site::decay ? value - 0.5 : 1.5 * value + 0.25;
      EXPECT_FALSE(same_bits(logits(tokens_, {other}), clean)) << "another row at " << at;
    }
  }
}

TEST_P(InnerMeans, AreChainsOverTheRowsOfAllTexts) {
  const std::vector<std::vector<Token>> texts = {tokens_, Numbers(12).tokens(9, model_->card().vocab)};
  const auto inner =
      record_of(texts).at("r")->nodes.at(model_->graph().nodes[static_cast<std::size_t>(node_)].name)->inner;
  for (const SiteSpec& spec : measured_) {
    SCOPED_TRACE(name_of(spec.site));
    const Index columns = columns_of(spec);
    std::vector<double> mean(static_cast<std::size_t>(columns), 0.0);
    for (const auto& text : texts) {
      const Rows rows = shown(text, 13).at(spec.site);  // any split shows the same rows
      for (Index r = 0; r < static_cast<Index>(text.size()); ++r)
        for (Index c = 0; c < columns; ++c)
          mean[static_cast<std::size_t>(c)] += static_cast<double>(rows.row(r)[static_cast<std::size_t>(c)]);
    }
    for (double& value : mean) value /= kTokens + 9;
    EXPECT_EQ(inner.at(spec.site), mean);
  }
}

TEST_P(InnerMeans, TheMeanOfAConstantChangesNothing) {  // C8
  const std::vector<Token> repeated(kTokens, tokens_[0]);
  const std::map<Site, Rows> rows = shown(repeated, 512);
  const std::vector<Token> single(1, tokens_[0]);
  const References many = record_of({repeated}), one = record_of({single});
  for (const SiteSpec& spec : measured_) {
    SCOPED_TRACE(name_of(spec.site));
    Edit edit = edit_of(spec);
    edit.reference = "r";
    EXPECT_TRUE(same_bits(logits(single, {edit}, one), logits(single, {}))) << "over one token";
    const Rows& own = rows.at(spec.site);
    bool constant = true;
    for (Index r = 1; r < kTokens; ++r) constant = constant && same_bits(own.row(r), own.row(0));
    // Of the layer's input alone: decays, strengths and gates, but for convolutions and positions before
    // them.
    if (constant) {
      EXPECT_TRUE(same_bits(logits(repeated, {edit}, many), logits(repeated, {}))) << "repeated";
    }
    if (GetParam().kind.find("ttt") == std::string::npos && spec.site != Site::head) {
      EXPECT_TRUE(constant);
    }
  }
}

TEST_P(InnerMeans, ReferencesAreReadByEditsWithoutValues) {
  const References references = record_of({tokens_});
  const auto inner =
      references.at("r")->nodes.at(model_->graph().nodes[static_cast<std::size_t>(node_)].name)->inner;
  for (const SiteSpec& spec : measured_) {
    SCOPED_TRACE(name_of(spec.site));
    Edit from_reference = edit_of(spec), by_values = edit_of(spec);
    from_reference.reference = "r";
    by_values.values = inner.at(spec.site);
    const std::vector<float> by_reference = logits(tokens_, {from_reference}, references);
    EXPECT_TRUE(same_bits(by_reference, logits(tokens_, {by_values})));
    Edit both = from_reference;
    both.values = {-0.125};
    by_values.values = both.values;
    EXPECT_TRUE(same_bits(logits(tokens_, {both}, references), logits(tokens_, {by_values})));
    // A recording that was not asked for the site.
    const References means = record_of({tokens_}, {});
    try {
      EditPlan(*model_, {from_reference}, means);
      ADD_FAILURE() << "not refused";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(std::string("holds no mean of ") + name_of(spec.site)),
                std::string::npos)
          << error.what();
    }
  }
}

// g and beta of the paper's formula in double precision, from the layer's own f32 input.
class DeltaMeans : public InnerMeans {};

TEST_P(DeltaMeans, AgreeWithTheTwin) {
  const TwinNode twin(*model_, node_, tokens_);
  const auto* delta = dynamic_cast<const reference::DeltaRuleTwin*>(&twin.twin());
  ASSERT_NE(delta, nullptr);
  std::vector<double> x;
  RunOptions options;
  options.observer = [&](int node, const Ports& ports, std::span<const Segment>) {
    for (Index r = 0; node == node_ && r < ports.input().rows; ++r)
      x.insert(x.end(), ports.input().row(r), ports.input().row(r) + ports.input().cols);
  };
  Sequence sequence(*model_);
  const Item item{&sequence, tokens_, Want::none};
  run_batch(*model_, {&item, 1}, options, {});
  const auto width = static_cast<Index>(x.size()) / kTokens;
  const reference::DeltaInputs in =
      delta->recurrence_inputs({static_cast<const double*>(x.data()), kTokens, width});
  const auto references = record_of({tokens_});
  const auto inner =
      references.at("r")->nodes.at(model_->graph().nodes[static_cast<std::size_t>(node_)].name)->inner;
  const auto agree = [&](Site site, const reference::Rows& rows) {
    const std::vector<double>& mean = inner.at(site);
    std::vector<double> expected(mean.size(), 0.0);
    for (std::size_t i = 0; i < rows.data.size(); ++i) expected[i % mean.size()] += rows.data[i] / kTokens;
    // A dot product of `width` terms in f32, sqrt(width) roundings of its terms' size, then a few units for
    // the functions behind it; the terms are not larger than a few times the result.
    EXPECT_LT(testing::relative_error(mean, expected), 8 * 0x1p-24 * std::sqrt(static_cast<double>(width)))
        << name_of(site);
  };
  if (in.g) agree(Site::decay, *in.g);
  agree(Site::write, in.beta);
}

INSTANTIATE_TEST_SUITE_P(Kinds, InnerMeans, ::testing::ValuesIn(cases()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Kinds, DeltaMeans, ::testing::ValuesIn(delta_rules()), name_of_case);

}  // namespace
}  // namespace plait
