// Compiled tables: the same tokenizer, or a sentence, or built anew from tokenizer.json.
#include "runtime/text/compiled_tables.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"

namespace plait {
namespace {

using nlohmann::json;

std::string read_case(const std::string& kind, const std::string& name) {
  std::ifstream file(PLAIT_SOURCE_DIR "/tests/text/cases/" + kind + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Compiled : public ::testing::TestWithParam<const char*> {
 protected:
  std::string source_ = read_case(GetParam(), "tokenizer.json");
  TokenizerFiles plain_ = {{"tokenizer.json", source_}};
  std::string bytes_ = compile_tokenizer(plain_, GetParam());
  TokenizerFiles both_ = {{"tokenizer.json", source_}, {kCompiledTables, bytes_}};
};

TEST_P(Compiled, GiveTheSameIdsAndText) {
  ASSERT_TRUE(read_compiled(bytes_, source_, "t"));
  const auto plain = make_tokenizer(plain_, "p"), compiled = make_tokenizer(both_, "c");
  EXPECT_EQ(compiled->kind(), plain->kind());
  ASSERT_EQ(compiled->vocab(), plain->vocab());
  for (Token t = 0; t < plain->vocab(); ++t) EXPECT_EQ(compiled->piece(t), plain->piece(t));
  const json cases = json::parse(read_case(GetParam(), "cases.json"));
  ASSERT_GE(cases.size(), 60u);
  for (const auto& item : cases) {
    const auto ids = item["ids"].get<std::vector<Token>>();
    EXPECT_EQ(compiled->encode(item["text"].get<std::string>()), ids);
    EXPECT_EQ(compiled->decode(ids), item["decoded"].get<std::string>());
  }
  EXPECT_EQ(compile_tokenizer(both_, GetParam()), bytes_);
}

TEST_P(Compiled, DamageIsASentence) {
  for (std::size_t size = 0; size < bytes_.size(); size += 1 + size / 200)
    EXPECT_THROW(read_compiled(std::string_view(bytes_).substr(0, size), source_, "t"), Error) << size;
  EXPECT_THROW(read_compiled(bytes_ + "x", source_, "t"), Error);
  for (std::size_t at = 0; at < bytes_.size(); at += 1 + at / 200) {
    std::string changed = bytes_;
    changed[at] = static_cast<char>(changed[at] ^ (1 << at % 8));
    const bool other = at >= 8 && at < 80;  // version, digest of tokenizer.json
    if (other)
      EXPECT_FALSE(read_compiled(changed, source_, "t")) << at;
    else
      EXPECT_THROW(read_compiled(changed, source_, "t"), Error) << at;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Compiled,
                         ::testing::Values("qwen2", "qwen3_5", "llama3", "gpt2", "falcon", "falcon_h1",
                                           "llama2", "unigram", "word_piece", "word_piece_nfd"),
                         [](const auto& kind) { return std::string(kind.param); });

constexpr const char* kSmall = R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
  "merges": ["a b"]}, "added_tokens": [{"id": 3, "content": "<e>", "single_word": false, "lstrip": false,
  "rstrip": false, "normalized": false, "special": true}]})";

std::vector<Token> ids(const std::string& source, const std::string& tables, const std::string& text) {
  return make_tokenizer({{"tokenizer.json", source}, {kCompiledTables, tables}}, "m")->encode(text);
}

TEST(CompiledTables, AreUsedWhereTheyBelongAndOnlyThere) {
  const std::string tables = compile_tokenizer({{"tokenizer.json", kSmall}}, "m");
  EXPECT_EQ(ids(kSmall, tables, "ab<e>a"), (std::vector<Token>{2, 3, 0}));
  TokenizerParts parts = parse_parts(kSmall, "t");
  parts.tables.merges.clear();
  const std::string unmerged = write_compiled(parts, kSmall);
  EXPECT_EQ(ids(kSmall, unmerged, "ab"), (std::vector<Token>{0, 1}));  // so they are what is read
  std::string other = unmerged;
  other[8] = 99;  // the version
  EXPECT_EQ(ids(kSmall, other, "ab"), std::vector<Token>{2});
  EXPECT_EQ(ids(std::string(kSmall) + "\n", unmerged, "ab"), std::vector<Token>{2});
}

TEST(CompiledTables, OtherTokenizersHaveNone) {
  EXPECT_EQ(compile_tokenizer({}, "m"), "");
  EXPECT_EQ(compile_tokenizer(ByteTokenizer().files(), "m"), "");
  EXPECT_EQ(compile_tokenizer({{"tokenizer.model", read_case("sentencepiece_bpe", "tokenizer.model")}}, "m"),
            "");
  EXPECT_THROW(compile_tokenizer({{"tokenizer.model", "broken"}}, "m"), Error);
  EXPECT_THROW(compile_tokenizer({{"tokenizer.json", "{}"}}, "m"), Error);
}

// Tables that are sealed rightly and contradict themselves.
TEST(CompiledTables, LiesAreSentences) {
  const std::string contents = write_compiled(parse_parts(kSmall, "t"), kSmall).substr(144);
  std::uint64_t settings = 0;
  std::memcpy(&settings, contents.data(), sizeof settings);
  const std::size_t entries = 40 + settings, texts = entries + 3 * 8, merges = texts + 4;
  ASSERT_EQ(contents.size(), merges + 12);
  const auto refusal = [&](std::size_t at, auto value) {
    std::string changed = contents;
    std::memcpy(changed.data() + at, &value, sizeof value);
    try {
      read_compiled(seal_compiled(changed, kSmall), kSmall, "t");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const auto starts = [](const std::string& text, const std::string& beginning) {
    EXPECT_EQ(text.substr(0, beginning.size()), beginning);
  };
  EXPECT_EQ(refusal(entries, 0u), "no error");
  for (std::size_t size = 0; size < 5; ++size)
    for (const std::uint64_t lie :
         {std::uint64_t{1000}, std::uint64_t{1} << 61, UINT64_MAX, UINT64_MAX / 8 + 2})
      starts(refusal(8 * size, lie), "t is damaged: its sections do not fill the ");
  starts(refusal(40, 'x'), "t is not JSON");
  starts(refusal(entries + 8, 0u), "t is damaged: token 0 of 1 bytes cannot follow token 0");
  starts(refusal(entries + 16, 1u << 30), "t: token 'ab' has id 1073741824; ids go from 0 to");
  starts(refusal(entries + 4, 9u), "t is damaged: token 0 of 9 bytes cannot follow token -1");
  starts(refusal(entries + 4, 0u), "t is damaged: 1 bytes of text belong to no token");
  starts(refusal(texts, '\xFF'), "t is damaged: the text of token 0 is not UTF-8");
  for (std::size_t i = 0; i < 3; ++i) {
    starts(refusal(merges + 4 * i, -1), "t is damaged: a merge names token -1");
    starts(refusal(merges + 4 * i, 3), "t is damaged: a merge names token 3, which is not in the vocabulary");
  }
}

TEST(CompiledTables, ScoresAreOneForEachToken) {
  const std::string source =
      R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1], ["b", -2]]}})";
  const auto refusal = [&](const std::vector<double>& scores) {
    TokenizerParts parts = parse_parts(source, "t");
    parts.tables.scores = scores;
    try {
      ids(source, write_compiled(parts, source), "a");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(refusal({-1, -2}), "no error");
  EXPECT_EQ(refusal({-1}), "m: tokenizer.json: model: 2 tokens have 1 scores");
  EXPECT_EQ(refusal({}), "m: tokenizer.json: model: 2 tokens have 0 scores");
  EXPECT_EQ(refusal({-1, std::numeric_limits<double>::infinity()}),
            "m: /tokenizer/compiled is damaged: a score is not finite");
}

}  // namespace
}  // namespace plait
