#include "tools/ablate/controls.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>

#include "runtime/base/error.h"
#include "tests/ablate/models.h"
#include "tools/ablate/designs.h"
#include "tools/ablate/draws.h"
#include "tools/ablate/plan.h"

namespace plait::ablate {
namespace {

// `blocks` places, one a block; every fourth is larger by `factor`.
std::vector<Component> places(int blocks, Index size = 100, double factor = 1) {
  std::vector<Component> all;
  for (int block = 0; block < blocks; ++block) {
    Component place;
    place.block = block;
    place.parameters = block % 4 == 3 ? static_cast<Index>(static_cast<double>(size) * factor) : size;
    all.push_back(place);
  }
  return all;
}

Controls asked(Index draws, double tolerance = 0.05) {
  Controls controls;
  controls.draws = draws;
  controls.tolerance = tolerance;
  return controls;
}

const std::vector<int> kSix = {3, 7, 11, 15, 19, 23};

std::array<int, 4> profile(const std::vector<int>& set, int blocks) {
  std::array<int, 4> counts{};
  for (const int i : set) ++counts[i == 0 ? 0 : static_cast<std::size_t>(1 + third_of(i, blocks))];
  return counts;
}

void expect_sets(const std::vector<std::vector<int>>& sets, int places) {
  for (const auto& set : sets) {
    EXPECT_TRUE(std::is_sorted(set.begin(), set.end()));
    EXPECT_EQ(std::set<int>(set.begin(), set.end()).size(), set.size());
    EXPECT_GE(set.front(), 0);
    EXPECT_LT(set.back(), places);
  }
}

TEST(Draws, BelowIsUniform) {
  // 70,000 draws of 7: each value 10,000 times, standard deviation 93; six of them leave 1 false alarm in
  // 7e7.
  std::array<int, 7> counts{};
  Draws draws({1, 24, 6, Stream::count, 0});
  for (int i = 0; i < 70000; ++i) ++counts[draws.below(7)];
  for (const int count : counts) EXPECT_NEAR(count, 10000, 6 * std::sqrt(70000.0 / 7 * 6 / 7));
}

TEST(Draws, DependOnTheirKeyAlone) {
  const DrawKey key{5, 24, 6, Stream::count, 3};
  EXPECT_EQ(Draws(key).sample(24, 6), Draws(key).sample(24, 6));
  const auto differs = [&](auto change) {
    DrawKey other = key;
    change(other);
    return Draws(other).sample(24, 6) != Draws(key).sample(24, 6);
  };
  EXPECT_TRUE(differs([](DrawKey& k) { k.seed = 6; }));
  EXPECT_TRUE(differs([](DrawKey& k) { k.seed = 5 + (std::uint64_t{1} << 32); }));
  EXPECT_TRUE(differs([](DrawKey& k) { k.places = 25; }));
  EXPECT_TRUE(differs([](DrawKey& k) { k.members = 7; }));
  EXPECT_TRUE(differs([](DrawKey& k) { k.stream = Stream::depth; }));
  EXPECT_TRUE(differs([](DrawKey& k) { k.draw = 4; }));
  EXPECT_TRUE(differs([](DrawKey& k) { k.attempt = 1; }));
}

TEST(Controls, CountMatched) {
  const auto pool = places(24);
  const ControlSets sets = draw_controls(Match::count, pool, kSix, 24, asked(2000), 1);
  ASSERT_EQ(sets.sets.size(), 2000u);
  EXPECT_FALSE(sets.exhaustive);
  EXPECT_EQ(sets.possible, 134596);  // 24 over 6
  expect_sets(sets.sets, 24);
  // Every place is in a quarter of the sets: 500 of 2,000, standard deviation 19.4.
  std::vector<int> uses(24);
  for (const auto& set : sets.sets) {
    EXPECT_EQ(set.size(), 6u);
    for (const int i : set) ++uses[static_cast<std::size_t>(i)];
  }
  for (const int n : uses) EXPECT_NEAR(n, 500, 6 * std::sqrt(2000 * 0.25 * 0.75));
}

TEST(Controls, DepthMatchedWithBlockZeroAsAFactor) {
  const std::vector<int> with = {0, 2, 9, 21, 22, 23}, without = {1, 2, 9, 21, 22, 23};
  for (const auto& target : {with, without}) {
    const ControlSets sets = draw_controls(Match::depth, places(24), target, 24, asked(500), 1);
    ASSERT_EQ(sets.sets.size(), 500u);
    expect_sets(sets.sets, 24);
    for (const auto& set : sets.sets) EXPECT_EQ(profile(set, 24), profile(target, 24));
  }
}

TEST(Controls, ParameterMatched) {
  const auto pool = places(24, 1000, 1.7);
  const ControlSets sets = draw_controls(Match::params, pool, kSix, 24, asked(500), 1);
  ASSERT_EQ(sets.sets.size(), 500u);
  expect_sets(sets.sets, 24);
  EXPECT_LE(sets.deviation, 0.05);
  EXPECT_EQ(sets.outside, 0);
  std::set<std::size_t> sizes;
  for (const auto& set : sets.sets) {
    double sum = 0;
    for (const int i : set) sum += static_cast<double>(pool[static_cast<std::size_t>(i)].parameters);
    EXPECT_LE(std::abs(sum / (6 * 1700) - 1), 0.05);
    sizes.insert(set.size());
  }
  EXPECT_GT(sizes.size(), 1u);  // more of the small ones make up for fewer of the large
}

TEST(Controls, WhatCannotMatchIsReported) {
  // One place of 150 among places of 1000: nothing but itself comes near.
  auto pool = places(24, 1000);
  pool[5].parameters = 150;
  const ControlSets sets = draw_controls(Match::params, pool, std::vector<int>{5}, 24, asked(199), 1);
  EXPECT_EQ(sets.sets.size(), 199u);
  EXPECT_GT(sets.outside, 0);
  EXPECT_GT(sets.deviation, 0.05);
  for (Component& place : pool) place.parameters = 0;
  const ControlSets none = draw_controls(Match::params, pool, kSix, 24, asked(199), 1);
  EXPECT_TRUE(none.sets.empty());
  EXPECT_NE(none.note.find("no parameters"), std::string::npos);
}

TEST(Controls, SameSetsInEveryModelOfThatDepth) {
  const auto small = places(24, 10), large = places(24, 1000000);
  for (const Match match : {Match::count, Match::params, Match::depth})
    EXPECT_EQ(draw_controls(match, small, kSix, 24, asked(199), 7).sets,
              draw_controls(match, large, kSix, 24, asked(199), 7).sets);
  // Another target of the same size.
  const std::vector<int> other = {0, 1, 2, 3, 4, 5};
  EXPECT_EQ(draw_controls(Match::count, small, kSix, 24, asked(199), 7).sets,
            draw_controls(Match::count, small, other, 24, asked(199), 7).sets);
  EXPECT_NE(draw_controls(Match::count, small, kSix, 24, asked(199), 7).sets,
            draw_controls(Match::count, small, kSix, 24, asked(199), 8).sets);
  // More draws go on where fewer stopped.
  auto longer = draw_controls(Match::depth, small, kSix, 24, asked(400), 7).sets;
  longer.resize(199);
  EXPECT_EQ(longer, draw_controls(Match::depth, small, kSix, 24, asked(199), 7).sets);
}

TEST(Controls, FewSetsAreEnumerated) {
  const std::vector<int> target = {0, 5};
  const ControlSets count = draw_controls(Match::count, places(8), target, 8, asked(199), 1);
  EXPECT_TRUE(count.exhaustive);
  EXPECT_EQ(count.possible, 28);
  EXPECT_EQ(std::set(count.sets.begin(), count.sets.end()).size(), 27u);  // all but the target
  EXPECT_EQ(std::count(count.sets.begin(), count.sets.end(), target), 0);
  expect_sets(count.sets, 8);

  const ControlSets depth = draw_controls(Match::depth, places(8), target, 8, asked(199), 1);
  EXPECT_TRUE(depth.exhaustive);
  EXPECT_EQ(depth.sets, (std::vector<std::vector<int>>{{0, 3}, {0, 4}}));  // the middle third is 3, 4, 5

  const auto mixed = places(8, 100, 3);
  const ControlSets params = draw_controls(Match::params, mixed, std::vector<int>{3}, 8, asked(199), 1);
  EXPECT_TRUE(params.exhaustive);
  EXPECT_EQ(params.sets.size(), 1u + 20u);  // the other large place, or three of the six small ones
  EXPECT_EQ(params.deviation, 0);

  const ControlSets all = draw_controls(Match::count, places(3), std::vector<int>{0, 1, 2}, 3, asked(199), 1);
  EXPECT_TRUE(all.exhaustive);
  EXPECT_TRUE(all.sets.empty());
  EXPECT_EQ(all.note, "no other set matches the target");
}

TEST(Controls, DrawsThatAgreeShareACondition) {
  const auto model = testing::sequential_model();
  Study study;
  Design group;
  group.design = "group";
  group.site = "layer.skip";
  study.designs = {group};
  study.controls.targets = {"group"};
  const Plan plan = plan_of(study, *model);
  ASSERT_EQ(plan.controls.size(), 6u);  // two groups, three ways
  Index drawn = 0;
  for (const ControlReport& report : plan.controls) {
    drawn += report.drawn;
    EXPECT_LE(report.distinct, report.drawn);
    EXPECT_TRUE(report.exhaustive || report.drawn == 199) << report.target << " " << report.match;
  }
  EXPECT_LT(plan.conditions.size(), static_cast<std::size_t>(drawn));
  const std::string csv = controls_csv(plan);
  EXPECT_TRUE(
      csv.starts_with("target_id,match_kind,draw,condition_id\ngroup.layer.skip.gated_delta_net,count,0,"));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), drawn + 1);
  // 3 of 12 layers have 220 sets: drawn; of 9 as well.
  EXPECT_EQ(plan.controls[3].possible, 220);
  for (const Use& use : plan.uses) {
    if (use.match_kind != "count") continue;
    const Condition& target = plan.conditions[static_cast<std::size_t>(plan.find(use.match_of))];
    EXPECT_EQ(plan.conditions[static_cast<std::size_t>(use.condition)].layers.size(), target.layers.size());
  }
}

TEST(Controls, OfConditionsOfASpec) {
  const auto model = testing::sequential_model();
  const auto plan = [&](const std::string& condition) {
    return plan_of(
        parse_study(
            read_document("conditions: [" + condition + "]\ncontrols: {for: [a], match: count}\n", "s.yaml"),
            ""),
        *model);
  };
  const Plan decays = plan("{id: a, site: decay, op: one, where: {layers: 0-4}, phase: decode}");
  EXPECT_EQ(decays.controls.at(0).possible, 126);  // 4 of the 9 blocks that have a decay
  EXPECT_TRUE(decays.controls[0].exhaustive);
  for (const Condition& c : decays.conditions)
    for (const Edit& edit : c.edits) EXPECT_EQ(edit.phase, Phase::decode);
  EXPECT_THROW(plan("{id: a, edits: [{where: blocks.0, operator: skip}]}"), Error);
}

TEST(Controls, OnTheCommandLine) {
  const Controls controls = parse_controls("count:499,depth");
  EXPECT_EQ(controls.draws, 499);
  EXPECT_EQ(controls.match, (std::vector<Match>{Match::count, Match::depth}));
  for (const char* bad : {"", "size", "count:5", "count:x", "count:199x", "count:"})
    EXPECT_THROW(parse_controls(bad), Error) << bad;
}

}  // namespace
}  // namespace plait::ablate
