// The journal: what a kill leaves is cut to whole records, and nothing else is believed.
#include "tools/ablate/journal.h"

#include <gtest/gtest.h>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "tests/files.h"
#include "tests/testing.h"

namespace plait::ablate {
namespace {

using testing::Folder;

UnitScores unit(Index number, Index conditions, Index tokens) {
  testing::Numbers numbers(static_cast<std::uint64_t>(number) + 1);
  UnitScores unit{number, conditions, tokens, {}};
  for (Index i = 0; i < conditions * tokens; ++i)
    unit.scores.push_back({static_cast<float>(numbers.normal()), static_cast<float>(numbers.normal()),
                           static_cast<std::int32_t>(i), static_cast<std::uint8_t>(i % 2)});
  return unit;
}

ScoredBatch batch(std::initializer_list<Index> units, Index conditions, Index tokens) {
  ScoredBatch batch;
  for (const Index u : units) {
    batch.units.push_back(unit(u, conditions, tokens));
    batch.cost += {0.1 * static_cast<double>(u + 1), tokens, 1};
  }
  return batch;
}

void expect_equal(const UnitScores& a, const UnitScores& b) {
  ASSERT_EQ(a.unit, b.unit);
  ASSERT_EQ(a.scores.size(), b.scores.size());
  for (std::size_t i = 0; i < a.scores.size(); ++i) {
    EXPECT_EQ(a.scores[i].nll, b.scores[i].nll);
    EXPECT_EQ(a.scores[i].kl, b.scores[i].kl);
    EXPECT_EQ(a.scores[i].rank, b.scores[i].rank);
    EXPECT_EQ(a.scores[i].agree, b.scores[i].agree);
  }
}

const std::string kPlan = sha256("a plan"), kOther = sha256("another plan");

TEST(Journals, GiveBackWhatTheyWereGivenInTheOrderOfUnits) {
  const Folder folder;
  const std::string path = folder / "j";
  const std::vector<Index> done = {2, 0, 1};
  const WavefrontCost cost{0.3 + 0.1 + 0.2, 21, 3};
  {
    Journal journal(path, kPlan);
    journal.append(batch({2, 0}, 3, 7));
    journal.append(batch({1}, 3, 7));
    EXPECT_EQ(journal.done(), done);
    EXPECT_EQ(journal.cost(), cost);
    EXPECT_THROW(Journal(path, kPlan), Error) << "one writer at a time";
  }
  {
    const Journal again(path, kPlan);
    EXPECT_EQ(again.done(), done);
    EXPECT_EQ(again.cost(), cost);
  }
  const auto back = Journal::read(path, kPlan);
  ASSERT_EQ(back.size(), 3u);
  for (Index u = 0; u < 3; ++u) expect_equal(back[static_cast<std::size_t>(u)], unit(u, 3, 7));
  EXPECT_EQ(back[0].of(2).size(), 7u);
  EXPECT_EQ(back[0].of(2)[0].rank, 14);
}

TEST(Journals, AnyTornTailIsCutAndWrittenAgainWithTheSameBytes) {
  const Folder folder;
  const std::string path = folder / "j";
  WavefrontCost cost;
  {
    Journal journal(path, kPlan);
    journal.append(batch({0, 1}, 2, 5));
    journal.append(batch({2}, 2, 5));
    cost = journal.cost();
  }
  const std::string whole = testing::read_bytes(path);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    testing::write_bytes(path, whole.substr(0, length));
    {
      Journal journal(path, kPlan);
      ASSERT_TRUE(journal.done().empty() || journal.done().size() == 2) << "a batch is there or it is not";
      if (journal.done().empty()) journal.append(batch({0, 1}, 2, 5));
      journal.append(batch({2}, 2, 5));
      ASSERT_EQ(journal.cost(), cost);
    }
    ASSERT_EQ(testing::read_bytes(path), whole) << "cut after " << length << " bytes";
  }
}

TEST(Journals, AFlippedBitEndsWhatIsBelieved) {
  const Folder folder;
  const std::string path = folder / "j";
  {
    Journal journal(path, kPlan);
    for (Index u = 0; u < 2; ++u) journal.append(batch({u}, 2, 5));
  }
  const std::string whole = testing::read_bytes(path);
  for (std::size_t at = 72; at < whole.size(); at += 3) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    testing::write_bytes(path, flipped);
    EXPECT_THROW(Journal::read(path, kPlan), Error) << at;
    EXPECT_LT(Journal(path, kPlan).done().size(), 2u) << at;
  }
}

TEST(Journals, OfAnotherPlanAreRefusedAndLeftAsTheyAre) {
  const Folder folder;
  const std::string path = folder / "j";
  { Journal(path, kPlan).append(batch({0}, 2, 5)); }
  const std::string whole = testing::read_bytes(path);
  EXPECT_THROW(Journal(path, kOther), Error);
  EXPECT_THROW(Journal::read(path, kOther), Error);
  EXPECT_EQ(testing::read_bytes(path), whole);
  testing::write_bytes(path, "PLAITJ01" + whole.substr(8));
  EXPECT_THROW(Journal(path, kPlan), Error) << "of an earlier version";
  testing::write_bytes(path, std::string(100, 'x'));
  EXPECT_THROW(Journal(path, kPlan), Error);
  EXPECT_THROW(Journal::read(folder / "none", kPlan), Error);
}

}  // namespace
}  // namespace plait::ablate
