#include "tools/ablate/designs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/base/error.h"
#include "tests/ablate/models.h"
#include "tools/ablate/plan.h"

namespace plait::ablate {
namespace {

using Layers = std::vector<int>;

Design design(const std::string& name, const std::string& site, const std::string& kind = "") {
  Design d;
  d.design = name;
  d.site = site;
  d.kind = kind;
  complete(d);
  return d;
}

std::vector<Condition> expanded(const Design& design, const Model& model) {
  std::vector<Condition> conditions;
  for (const Planned& planned : expand(design, model, components_of(model), 1).planned)
    conditions.push_back(planned.condition);
  return conditions;
}

std::vector<Layers> layers_of(const std::vector<Condition>& conditions) {
  std::vector<Layers> all;
  for (const Condition& c : conditions) all.push_back(c.layers);
  return all;
}

std::vector<std::string> ids_of(const std::vector<Condition>& conditions) {
  std::vector<std::string> all;
  for (const Condition& c : conditions) all.push_back(c.id);
  return all;
}

Plan plan_with(const Model& model, std::vector<Design> designs) {
  Study study;
  study.designs = std::move(designs);
  return plan_of(study, model);
}

class Designs : public ::testing::Test {
 protected:
  const Model& sequential = *testing::sequential_model();
  const Model& parallel = *testing::parallel_model();
};

TEST_F(Designs, Single) {
  const auto singles = expanded(design("single", "layer.skip"), sequential);
  ASSERT_EQ(singles.size(), 12u);
  EXPECT_EQ(singles[7].id, "single.layer.skip.7");
  EXPECT_EQ(singles[7].layers, Layers{7});
  EXPECT_EQ(singles[7].component_type, "softmax_attention+layer");
  EXPECT_EQ(singles[7].n_layers_removed, 1);
  EXPECT_EQ(singles[7].params_removed, components_of(sequential).layers[7].parameters);
  EXPECT_EQ(expanded(design("single", "mlp.zero"), sequential)[2].component_type, "mlp");
  EXPECT_EQ(expanded(design("single", "mixer.zero"), parallel).size(), 6u);
  const auto branches = expanded(design("single", "branch.zero"), parallel);
  ASSERT_EQ(branches.size(), 12u);
  EXPECT_EQ(branches[3].id, "single.branch.zero.1.mixer.ssm");
  EXPECT_EQ(expanded(design("single", "erase.off"), sequential).size(), 9u);  // where there is an erasure
}

TEST_F(Designs, Group) {
  EXPECT_EQ(layers_of(expanded(design("group", "mixer.zero"), sequential)),
            (std::vector<Layers>{{0, 1, 2, 4, 5, 6, 8, 9, 10}, {3, 7, 11}}));
  const auto kinds = expanded(design("group", "mixer.zero"), parallel);
  EXPECT_EQ(ids_of(kinds),
            (std::vector<std::string>{"group.mixer.zero.mamba2", "group.mixer.zero.softmax_attention"}));
  EXPECT_EQ(kinds[0].edits.size(), 6u);
  EXPECT_EQ(kinds[0].edits[5].node, "blocks.5.mixer.ssm");
}

TEST_F(Designs, Thirds) {
  EXPECT_EQ(layers_of(expanded(design("third", "layer.skip", "softmax_attention"), sequential)),
            (std::vector<Layers>{{3}, {7}, {11}}));
  const auto all = layers_of(expanded(design("third", "layer.skip"), sequential));
  EXPECT_EQ(all[0], (Layers{0, 1, 2, 3}));
  EXPECT_EQ(all[2], (Layers{8, 9, 10, 11}));
  EXPECT_EQ(all.size(), 9u);  // all places and two kinds
}

TEST_F(Designs, Windows) {
  const auto windows = layers_of(expanded(design("window", "mixer.zero"), sequential));
  ASSERT_EQ(windows.size(), 11u + 10u + 9u);
  EXPECT_EQ(windows[0], (Layers{0, 1}));
  EXPECT_EQ(windows.back(), (Layers{8, 9, 10, 11}));
  // Blocks with several places: a window runs along one kind.
  for (const Condition& c : expanded(design("window", "branch.zero"), parallel))
    EXPECT_EQ(c.layers.size(), c.edits.size()) << c.id;
}

TEST_F(Designs, CumulativeFromBothEnds) {
  const auto sets = layers_of(expanded(design("cumulative", "layer.skip", "softmax_attention"), sequential));
  EXPECT_EQ(sets, (std::vector<Layers>{{3}, {11}, {3, 7}, {7, 11}, {3, 7, 11}, {3, 7, 11}}));
  Design some = design("cumulative", "layer.skip");
  some.sizes = {1, 4, 99};
  EXPECT_EQ(expanded(some, sequential).size(), 4u);
}

TEST_F(Designs, LeaveOneIn) {
  const auto sets = layers_of(expanded(design("leave_in", "mixer.zero", "softmax_attention"), sequential));
  EXPECT_EQ(sets, (std::vector<Layers>{{3, 7, 11}, {7, 11}, {3, 11}, {3, 7}}));
}

TEST_F(Designs, Dose) {
  const auto doses = expanded(design("dose", "mixer.zero", "softmax_attention"), sequential);
  ASSERT_EQ(doses.size(), 4u);
  EXPECT_EQ(doses[0].alpha, 0.25);
  EXPECT_EQ(doses[0].edits[2].strength, 0.25);
  EXPECT_EQ(doses[0].params_removed, 0);
  EXPECT_EQ(doses[3].alpha, 1);
  // Full strength is the group itself.
  const Plan plan = plan_with(sequential, {design("group", "mixer.zero"), design("dose", "mixer.zero")});
  EXPECT_EQ(plan.conditions.size(), 1u + 2u + 6u);
  EXPECT_EQ(plan.find("dose.mixer.zero.softmax_attention.1"),
            plan.find("group.mixer.zero.softmax_attention"));
}

TEST_F(Designs, OptionsBelongToEveryEdit) {
  Design decode = design("group", "mixer.zero");
  decode.options = {{"phase", "decode"}};
  const auto groups = expanded(decode, sequential);
  EXPECT_EQ(groups[0].phase, "decode");
  for (const Edit& edit : groups[0].edits) EXPECT_EQ(edit.phase, Phase::decode);
  EXPECT_EQ(groups[0].params_removed, 0);
  EXPECT_NE(groups[0].id, expanded(design("group", "mixer.zero"), sequential)[0].id);
}

TEST_F(Designs, PairsOfTheStrongest) {
  Design pairs = design("pair", "mixer.zero");
  pairs.top = 3;
  Study study;
  study.designs = {design("single", "mixer.zero"), pairs};
  Plan plan = plan_of(study, sequential);
  ASSERT_EQ(plan.deferred.size(), 1u);
  EXPECT_EQ(plan.conditions.size(), 13u);
  add_pairs(plan, study, sequential, plan.deferred[0],
            {"single.mixer.zero.5", "single.mixer.zero.0", "single.mixer.zero.11", "single.mixer.zero.7"});
  ASSERT_EQ(plan.conditions.size(), 16u);
  EXPECT_EQ(plan.conditions[13].layers, (Layers{0, 5}));
  EXPECT_EQ(plan.conditions[15].layers, (Layers{5, 11}));
  EXPECT_THROW(add_pairs(plan, study, sequential, plan.deferred[0], {"baseline"}), Error);
  EXPECT_THROW(add_pairs(plan, study, sequential, plan.deferred[0], {"nothing"}), Error);
}

TEST_F(Designs, ShapleyOrders) {
  Design shapley = design("shapley", "layer.skip");
  shapley.permutations = 20;
  const Plan plan = plan_with(sequential, {shapley});
  ASSERT_EQ(plan.shapley.size(), 1u);
  const Shapley& s = plan.shapley[0];
  ASSERT_EQ(s.orders.size(), 20u);
  std::set<int> reached = {0};
  for (std::size_t p = 0; p < s.orders.size(); ++p) {
    auto order = s.orders[p];
    if (p % 2 == 1) {
      auto reverse = s.orders[p - 1];
      std::reverse(reverse.begin(), reverse.end());
      EXPECT_EQ(order, reverse);
    }
    ASSERT_EQ(s.at[p].size(), 13u);
    EXPECT_EQ(s.at[p][0], 0);
    std::set<int> removed;
    for (std::size_t k = 0; k < order.size(); ++k) {
      removed.insert(order[k]);
      const Condition& c = plan.conditions[static_cast<std::size_t>(s.at[p][k + 1])];
      EXPECT_EQ(c.layers, Layers(removed.begin(), removed.end()));
      reached.insert(s.at[p][k + 1]);
    }
    std::sort(order.begin(), order.end());
    for (int i = 0; i < 12; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  }
  EXPECT_EQ(reached.size(), plan.conditions.size());  // no coalition twice, none unused
  EXPECT_LT(plan.conditions.size(), 1u + 20u * 12u);
  EXPECT_NE(s.orders[0], s.orders[2]);
  EXPECT_EQ(plan_with(sequential, {shapley}).shapley[0].orders, s.orders);
}

TEST_F(Designs, EqualEditsAreOneConditionWithAllNames) {
  const Plan plan = plan_with(sequential, {design("single", "layer.skip"), design("cumulative", "layer.skip"),
                                           design("window", "layer.skip")});
  std::set<std::string> digests;
  for (const Condition& c : plan.conditions) EXPECT_TRUE(digests.insert(digest(c.edits)).second) << c.id;
  EXPECT_EQ(plan.find("cumulative.layer.skip.first.1"), plan.find("single.layer.skip.0"));
  EXPECT_EQ(plan.find("cumulative.layer.skip.last.3"), plan.find("window.layer.skip.3.9-11"));
  EXPECT_EQ(plan.conditions[static_cast<std::size_t>(plan.find("cumulative.layer.skip.first.1"))].design,
            "single");
  EXPECT_EQ(plan.uses.size(), 1u + 12u + 24u + 30u);
}

TEST_F(Designs, NamedStudiesFitEveryModel) {
  for (const std::string& name : study_names())
    for (const Model* model : {&sequential, &parallel, testing::scaled_model().get()}) {
      const Plan plan = plan_of(study_named(name, *model), *model);
      check_edits(plan, *model);
      std::map<std::string, int> designs;
      std::set<std::string> ids;
      for (const Use& use : plan.uses)
        ++designs[use.design], EXPECT_TRUE(ids.insert(use.id).second) << use.id;
      for (const char* part : {"baseline", "single", "group", "third", "cumulative", "random"})
        EXPECT_GT(designs[part], 0) << name << " " << part;
      if (name == "full")
        for (const char* part : {"window", "leave_in", "shapley", "dose"})
          EXPECT_GT(designs[part], 0) << part;
      EXPECT_EQ(plan.deferred.empty(), name != "full");
    }
  EXPECT_THROW(study_named("hybrid", sequential), Error);
}

TEST_F(Designs, ThePaperRemovesLayersOrBranches) {
  const Plan layers = plan_of(study_named("hybrid2026", sequential), sequential);
  EXPECT_GE(layers.find("group.layer.skip.gated_delta_net+"), -1);
  EXPECT_EQ(layers.conditions[static_cast<std::size_t>(layers.find("group.layer.skip.gated_delta_net"))]
                .layers.size(),
            9u);
  EXPECT_GT(layers.find("cumulative.layer.skip.gated_delta_net.first.8"), 0);
  const Plan branches = plan_of(study_named("hybrid2026", parallel), parallel);
  EXPECT_GT(branches.find("group.branch.zero.mamba2"), 0);
  EXPECT_GT(branches.find("third.branch.zero.mamba2.late"), 0);
}

TEST_F(Designs, SweepOnTheCommandLine) {
  const auto designs = parse_sweep("mixer.zero,mlp;window:layer.skip");
  ASSERT_EQ(designs.size(), 3u);
  EXPECT_EQ(designs[1], design("single", "mlp.zero"));
  EXPECT_EQ(designs[2], design("window", "layer.skip"));
  EXPECT_EQ(parse_sweep("single:mixer,mlp")[0], design("single", "mixer.zero"));
  for (const char* bad : {"", "mixer.zap", "windows:layer.skip", ";"})
    EXPECT_THROW(parse_sweep(bad), Error) << bad;
}

TEST_F(Designs, Tables) {
  const Plan plan = plan_of(study_named("hybrid2026", parallel), parallel);
  const std::string csv = conditions_csv(plan);
  EXPECT_EQ(static_cast<std::size_t>(std::count(csv.begin(), csv.end(), '\n')), plan.conditions.size() + 1);
  EXPECT_TRUE(csv.starts_with(
      "condition_id,label,spec_json,spec_sha256,design,component_type,site,layers,heads,phase,"
      "operator,alpha,n_layers_removed,params_removed,state_bytes_removed,kv_bytes_removed,"
      "match_of,match_kind,draw\nbaseline,baseline,[],"));
  const Json json = to_json(plan);
  EXPECT_EQ(json["controls"].size(), plan.controls.size());
}

}  // namespace
}  // namespace plait::ablate
