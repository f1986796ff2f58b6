#include "runtime/text/special_tokens.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"

namespace plait {
namespace {

SpecialTokens found(const TokenizerFiles& files) {
  return find_special_tokens(files, "m.h5", 100, [](const std::string& text) {
    return text.size() == 1 ? std::optional<Token>(text[0]) : std::nullopt;
  });
}

std::vector<Token> ends(const std::string& generation) {
  return found({{"generation_config.json", generation}}).eos;
}

TEST(SpecialTokens, IdsOfTheGenerationConfig) {
  EXPECT_EQ(ends(R"({"eos_token_id": 7})"), std::vector<Token>({7}));
  EXPECT_EQ(ends(R"({"eos_token_id": [7, 9]})"), std::vector<Token>({7, 9}));
  EXPECT_TRUE(ends(R"({"eos_token_id": null})").empty());
  EXPECT_TRUE(ends("{}").empty());
  EXPECT_TRUE(found({}).eos.empty());
  EXPECT_FALSE(found({}).bos);
  for (const char* id : {"\"x\"", "-1", "100", "1.5", "18446744073709551615", "[[7]]", "true"})
    EXPECT_THROW(ends(std::string("{\"eos_token_id\": ") + id + "}"), Error) << id;
  EXPECT_THROW(ends("[7]"), Error);
}

TEST(SpecialTokens, TheTokenizersOwnComesFirst) {
  const SpecialTokens special =
      found({{"tokenizer_config.json", R"({"bos_token": "B", "eos_token": {"content": "E"}})"},
             {"special_tokens_map.json", R"({"eos_token": "F", "bos_token": "C"})"},
             {"generation_config.json", R"({"eos_token_id": [7, 69], "bos_token_id": 3})"}});
  EXPECT_EQ(special.eos, std::vector<Token>({'E', 7}));
  EXPECT_EQ(special.bos, 'B');
  EXPECT_EQ(special.eos_text, "");
  EXPECT_EQ(found({{"special_tokens_map.json", R"({"eos_token": "F"})"}}).eos, std::vector<Token>({'F'}));
  EXPECT_EQ(found({{"generation_config.json", R"({"bos_token_id": 3})"}}).bos, 3);
  EXPECT_THROW(found({{"tokenizer_config.json", R"({"eos_token": 5})"}}), Error);
}

TEST(SpecialTokens, ATextThatIsNoTokenEndsATextSpelledOut) {
  const SpecialTokens special = found({{"tokenizer_config.json", R"({"eos_token": "end"})"}});
  EXPECT_TRUE(special.eos.empty());
  EXPECT_EQ(special.eos_text, "end");
}

TEST(SpecialTokens, ModelsOfBytesHaveThemToo) {
  TokenizerFiles files = ByteTokenizer().files();
  files["tokenizer_config.json"] = R"({"eos_token": "\n"})";
  files["generation_config.json"] = R"({"eos_token_id": 256})";
  EXPECT_EQ(make_tokenizer(files, "m.h5")->special_tokens().eos, std::vector<Token>({'\n', 256}));
}

}  // namespace
}  // namespace plait
