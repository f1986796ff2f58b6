// A text gives the tokens of its content, however it arrives.
#include "tools/stream/input.h"

#include <gtest/gtest.h>

#include "tests/files.h"
#include "tests/testing.h"

namespace plait::stream {
namespace {

std::shared_ptr<const Tokenizer> byte_pairs() {
  const std::string path = PLAIT_SOURCE_DIR "/tests/text/cases/qwen2/tokenizer.json";
  return make_tokenizer({{"tokenizer.json", testing::read_bytes(path)}}, path);
}

std::vector<Token> tokens_of(std::string_view text, const std::shared_ptr<const Tokenizer>& tokenizer,
                             std::size_t step, Specials specials = Specials::without) {
  TextPieces pieces(tokenizer, specials);
  std::vector<Token> tokens;
  for (std::size_t at = 0; at < text.size(); at += step) pieces.push(text.substr(at, step), tokens);
  pieces.finish(tokens);
  return tokens;
}

// Lines, blank lines, indented lines, characters of several bytes.
std::string prose() {
  testing::Numbers numbers(4);
  std::string text;
  while (text.size() < 5000) {
    const auto pick = numbers.bits() % 8;
    text += pick == 0   ? "\n"
            : pick == 1 ? "\n\n    "
            : pick == 2 ? "\xc3\xa9t\xc3\xa9 "
            : pick == 3 ? "\n\xe2\x82\xac"
                        : "the words ";
  }
  return text;
}

TEST(TextPieces, ArrivalChangesNoToken) {
  const std::string text = prose();
  const auto tokenizer = byte_pairs();
  const std::vector<Token> whole = tokens_of(text, tokenizer, text.size());
  for (const std::size_t step : {1, 3, 64, 999}) EXPECT_EQ(tokens_of(text, tokenizer, step), whole) << step;
  EXPECT_EQ(whole, tokenizer->encode(text, Specials::without))
      << "a cut divides nothing that the pattern joins";
}

TEST(TextPieces, APieceWaitsForTheNextWordAndBytesForNothing) {
  std::vector<Token> tokens;
  TextPieces pieces(byte_pairs(), Specials::without);
  pieces.push("first\n", tokens);
  EXPECT_TRUE(tokens.empty());
  pieces.push("  still\n", tokens);
  EXPECT_TRUE(tokens.empty());
  pieces.push("n", tokens);
  EXPECT_FALSE(tokens.empty());
  tokens.clear();
  TextPieces bytes(std::make_shared<const ByteTokenizer>(), Specials::with);
  bytes.push("ab", tokens);
  EXPECT_EQ(tokens, (std::vector<Token>{'a', 'b'}));
}

TEST(TextPieces, ALongLineIsCutBetweenCharacters) {
  std::string text(TextPieces::kLongestPiece - 1, 'a');
  text += "\xe2\x82\xac and the rest";
  const auto tokenizer = byte_pairs();
  std::vector<Token> expected =
      tokenizer->encode(text.substr(0, TextPieces::kLongestPiece - 1), Specials::without);
  for (const Token token : tokenizer->encode("\xe2\x82\xac and the rest", Specials::without))
    expected.push_back(token);
  EXPECT_EQ(tokens_of(text, tokenizer, 4096), expected);
  EXPECT_EQ(tokens_of(text, tokenizer, text.size()), expected);
}

TEST(TextPieces, OnlyTheSpecialTokensOfTheBeginArePutIn) {
  const std::string path = PLAIT_SOURCE_DIR "/tests/text/cases/llama3/tokenizer.json";
  const auto tokenizer = make_tokenizer({{"tokenizer.json", testing::read_bytes(path)}}, path);
  const std::string text = "one line\nanother\n";
  const std::vector<Token> with = tokenizer->encode(text, Specials::with);
  ASSERT_NE(with, tokenizer->encode(text, Specials::without));
  EXPECT_EQ(tokens_of(text, tokenizer, 1, Specials::with).front(), with.front());
  EXPECT_EQ(tokens_of(text, tokenizer, 1, Specials::with).size(), tokens_of(text, tokenizer, 1).size() + 1);
}

}  // namespace
}  // namespace plait::stream
