// Texts, documents and windows; and what is kept of a row of logits.
#include "tools/ablate/corpus.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "tests/files.h"
#include "tests/testing.h"
#include "tools/ablate/scores.h"

namespace plait::ablate {
namespace {

using testing::Folder;

TEST(Documents, BeginWhereTheRuleSays) {
  const std::string text = " = Title = \n\nOne line.\nTwo.\n\n\n == Part == \nMore.\n = Next = \nEnd";
  EXPECT_EQ(document_starts(text, "line").size(), 7u);
  EXPECT_EQ(document_starts(text, "blank"), (std::vector<std::size_t>{0, 13, 30}));
  EXPECT_EQ(document_starts(text, "heading"), (std::vector<std::size_t>{0, text.find(" = Next")}));
  EXPECT_EQ(document_starts("# A\nx\n## B\n# C\n", "heading"), (std::vector<std::size_t>{0, 11}));
  EXPECT_EQ(document_starts("", "blank"), (std::vector<std::size_t>{0}));
  EXPECT_THROW(document_starts(text, "page"), Error);
}

TEST(Texts, KnowTheDocumentAndBytesOfEachToken) {
  const Folder folder;
  testing::write_bytes(folder / "t.txt", "ab\n\ncde\n");
  const Text text = read_text(folder / "t.txt", "blank", ByteTokenizer(), 256);
  ASSERT_EQ(text.sequences.size(), 1u);
  EXPECT_EQ(text.token_count(), 8);
  EXPECT_EQ(text.document_count, 2);
  EXPECT_EQ(text.sequences[0].document, (std::vector<Index>{0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(text.sequences[0].bytes, std::vector<Index>(8, 1));
  EXPECT_EQ(text.name, "t.txt");
}

TEST(Texts, RecordsAreSequencesOfTheirOwn) {
  const Folder folder;
  testing::write_bytes(folder / "t.jsonl", "{\"text\": \"abc\"}\n\n{\"text\": \"defg\", \"id\": 3}\n");
  const Text text = read_text(folder / "t.jsonl", "jsonl:text", ByteTokenizer(), 256);
  ASSERT_EQ(text.sequences.size(), 2u);
  EXPECT_EQ(text.sequences[1].tokens, (std::vector<Token>{'d', 'e', 'f', 'g'}));
  EXPECT_EQ(text.sequences[1].document, std::vector<Index>(4, 1));
}

TEST(Texts, BadOnesAreNamed) {
  const Folder folder;
  const auto message = [&](const std::string& bytes, const std::string& rule,
                           Index vocab = 256) -> std::string {
    testing::write_bytes(folder / "t", bytes);
    try {
      read_text(folder / "t", rule, ByteTokenizer(), vocab);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message("a", "blank").find("scoring needs two"), std::string::npos);
  EXPECT_NE(message("{\"text\": \"abc\"}\nno json\n", "jsonl:text").find("line 2"), std::string::npos);
  EXPECT_NE(message("{\"text\": 3}\n", "jsonl:text").find("no text 'text'"), std::string::npos);
  EXPECT_NE(message("abc", "jsonl:").find("field"), std::string::npos);
  EXPECT_NE(message("abc", "blank", 98).find("vocabulary of 98"), std::string::npos);
}

TEST(Units, CoverATextOnceAndScoreTheSamePositionsInEveryContext) {
  const Folder folder;
  testing::write_bytes(folder / "t", std::string(1000, 'x'));
  const std::vector<Text> texts = {read_text(folder / "t", "blank", ByteTokenizer(), 256)};
  const auto targets = [&](Index context, double share) {
    std::vector<Index> all;
    for (const Unit& unit : units_of(texts, 0, context, share, 7))
      for (const Index offset : unit.scored) all.push_back(unit.begin + offset + 1);
    return all;
  };
  EXPECT_EQ(targets(0, 1).size(), 999u);
  EXPECT_EQ(targets(100, 1).size(), 990u) << "the first token of a window has no prediction";
  const auto stream = targets(0, 0.2), windows = targets(100, 0.2);
  EXPECT_NEAR(static_cast<double>(stream.size()), 200, 5 * std::sqrt(1000 * 0.2 * 0.8));
  EXPECT_TRUE(std::includes(stream.begin(), stream.end(), windows.begin(), windows.end()));
}

TEST(RowScores, AreThoseOfDoublePrecision) {
  testing::Numbers numbers(3);
  for (const Index vocab : {2, 97, 1000}) {
    const auto base = numbers.normals(vocab, 3), row = numbers.normals(vocab, 3);
    RowScorer scorer(vocab, {});
    scorer.set_baseline(base);
    std::vector<float> scratch(static_cast<std::size_t>(vocab));
    const Token target = static_cast<Token>(vocab / 2);
    const TokenScores got = scorer.score(row, target, scratch);
    const auto log_sum = [](const std::vector<float>& x) {
      double sum = 0;
      for (const float v : x) sum += std::exp(static_cast<double>(v));
      return std::log(sum);
    };
    const double lb = log_sum(base), lr = log_sum(row);
    double kl = 0;
    Index rank = 0;
    for (std::size_t i = 0; i < base.size(); ++i) {
      kl += std::exp(base[i] - lb) * ((base[i] - lb) - (row[i] - lr));
      rank += row[i] > row[static_cast<std::size_t>(target)];
    }
    // f32 exponentials carry a few ulps each, and so do their sum's relative error and the f32 result.
    EXPECT_NEAR(got.nll, lr - row[static_cast<std::size_t>(target)], 8 * 0x1p-24 * (1 + std::abs(got.nll)));
    EXPECT_NEAR(got.kl, kl, 64 * 0x1p-24 * (1 + kl));
    EXPECT_EQ(got.rank, rank);
    scorer.set_baseline(row);
    const TokenScores same = scorer.score(row, target, scratch);
    EXPECT_LT(same.kl, 1e-6f);
    EXPECT_EQ(same.agree, 1);
  }
}

TEST(RowScores, OfEqualLogitsTheLowerIndexIsAhead) {
  const std::vector<float> flat(10, 0.5f);
  RowScorer scorer(10, {});
  scorer.set_baseline(flat);
  std::vector<float> scratch(10);
  EXPECT_EQ(scorer.score(flat, 0, scratch).rank, 0);
  EXPECT_EQ(scorer.score(flat, 9, scratch).rank, 9);
}

}  // namespace
}  // namespace plait::ablate
