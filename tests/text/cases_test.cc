// Strings as Hugging Face tokenizers 0.23 and sentencepiece encode and decode them: tests/text/cases/KIND,
// written by fuzz.py --kind KIND --n 400 --vocab 500 --write (unigram, which takes every character of its
// text: --vocab 2500).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"

namespace plait {
namespace {

using Path = std::filesystem::path;

std::string read_file(const Path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Cases : public ::testing::TestWithParam<const char*> {
 protected:
  Cases() : folder_(Path(PLAIT_SOURCE_DIR) / "tests/text/cases" / GetParam()) {
    for (const char* name : {"tokenizer.json", "tokenizer.model"})
      if (std::filesystem::exists(folder_ / name)) files_[name] = read_file(folder_ / name);
    tokenizer_ = make_tokenizer(files_, GetParam());
    cases_ = nlohmann::json::parse(read_file(folder_ / "cases.json"));
  }
  Path folder_;
  TokenizerFiles files_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  nlohmann::json cases_;
};

TEST_P(Cases, IdsAndTextAreEqual) {
  ASSERT_GE(cases_.size(), 60u);
  for (const auto& item : cases_) {
    const auto text = item["text"].get<std::string>();
    const auto ids = item["ids"].get<std::vector<Token>>();
    ASSERT_EQ(tokenizer_->encode(text), ids) << item["text"];
    ASSERT_EQ(tokenizer_->encode(text, Specials::without), item["bare"].get<std::vector<Token>>())
        << item["text"];
    ASSERT_EQ(tokenizer_->decode(ids), item["decoded"].get<std::string>()) << item["text"];
    ASSERT_EQ(tokenizer_->decode(ids, Specials::without), item["plain"].get<std::string>()) << item["text"];
  }
}

// What a stream has said is the beginning of the whole, and whole characters only.
TEST_P(Cases, StreamsWholeCharacters) {
  for (const auto& item : cases_) {
    const auto whole = item["decoded"].get<std::string>();
    StreamDecoder decoder(*tokenizer_);
    std::string said;
    for (const Token token : item["ids"].get<std::vector<Token>>()) {
      const std::string now = decoder.push(token);
      ASSERT_EQ(to_valid_utf8(now), now);
      said += now;
      ASSERT_TRUE(whole.starts_with(said)) << item["text"];
    }
    ASSERT_EQ(said + decoder.finish(), whole);
  }
}

TEST_P(Cases, IllFormedTextIsReplaced) {
  const std::string broken = "a\xFF\xE2\x82 b\xF0\x9F";
  EXPECT_EQ(tokenizer_->encode(broken), tokenizer_->encode(to_valid_utf8(broken)));
}

INSTANTIATE_TEST_SUITE_P(Kinds, Cases,
                         ::testing::Values("qwen2", "qwen3_5", "llama3", "gpt2", "falcon", "falcon_h1",
                                           "llama2", "unigram", "word_piece", "word_piece_nfd",
                                           "sentencepiece_bpe", "sentencepiece_unigram"),
                         [](const auto& kind) { return std::string(kind.param); });

// Every change of a file that this plait does not understand is a sentence.
TEST(TokenizerJson, RefusesWhatItDoesNotKnow) {
  const auto good =
      nlohmann::json::parse(read_file(Path(PLAIT_SOURCE_DIR) / "tests/text/cases/qwen2/tokenizer.json"));
  const auto sentence = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json changed = good;
    changed[nlohmann::json::json_pointer(pointer)] = value;
    try {
      make_tokenizer({{"tokenizer.json", changed.dump()}}, "m");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(sentence("/model/dropout", nullptr), "no error");
  EXPECT_EQ(sentence("/surprise", 1), "m: tokenizer.json: this plait does not know the key 'surprise'");
  EXPECT_EQ(sentence("/normalizer/type", "Nmt"),
            "m: tokenizer.json: normalizer: this plait does not know the normalizer 'Nmt'");
  EXPECT_EQ(sentence("/decoder/type", "CTC"),
            "m: tokenizer.json: decoder: this plait does not know the decoder 'CTC'");
  EXPECT_EQ(sentence("/model/type", "WordLevel"),
            "m: tokenizer.json: model: this plait does not know the model 'WordLevel'");
  EXPECT_EQ(sentence("/model/dropout", 0.1),
            "m: tokenizer.json: model: dropout 0.1 makes tokens random; only null and 0 are read");
  EXPECT_EQ(sentence("/model/merges/0", "a b c"),
            "m: tokenizer.json: model: merge 0 is not two tokens: \"a b c\"");
  EXPECT_EQ(sentence("/model/merges/0", nlohmann::json::array({"a", "no such token"})),
            "m: tokenizer.json: model: merge 0: 'no such token' is not in the vocabulary");
  EXPECT_EQ(sentence("/model/vocab/new", -1),
            "m: tokenizer.json: model: token 'new' has id -1; ids go from 0 to 16777215");
  EXPECT_NE(sentence("/model/vocab/new", 0).find("both have id 0"), std::string::npos);
  EXPECT_NE(sentence("/pre_tokenizer/pretokenizers/0/pattern/Regex", "(").find("is not one this plait reads"),
            std::string::npos);
  EXPECT_NE(
      sentence("/pre_tokenizer/pretokenizers/0/pattern/Regex", "[a&&b]").find("an intersection of classes"),
      std::string::npos);
  EXPECT_NE(sentence("/added_tokens/0/id", 77).find("its place in the vocabulary is 0"), std::string::npos);
}

// Every value of a tokenizer.json in turn replaced by something of another type, or left out: understood all
// the same, or a sentence that names the file.
TEST(TokenizerJson, WrongTypesAreSentences) {
  int refused = 0, taken = 0;
  const auto offer = [&](const nlohmann::json& json, const std::string& place) {
    try {
      make_tokenizer({{"tokenizer.json", json.dump()}}, "m")->encode("a b");
      ++taken;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("m: tokenizer.json")) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      ++refused;
    } catch (const std::exception& error) {
      ADD_FAILURE() << place << ": " << error.what();
    }
  };
  for (const char* kind : {"falcon", "llama2", "unigram", "word_piece"}) {
    auto json = nlohmann::json::parse(
        read_file(Path(PLAIT_SOURCE_DIR) / "tests/text/cases" / kind / "tokenizer.json"));
    const std::vector<nlohmann::json> strange = {
        nullptr, true, -1, 1.5, 1ull << 63, "x", nlohmann::json::array(), nlohmann::json::object()};
    std::vector<std::string> places;
    const nlohmann::json flat = json.flatten();
    for (const auto& item : flat.items()) {
      const std::string& place = item.key();
      const bool bulk = place.starts_with("/model/vocab/") || place.starts_with("/model/merges/");
      if (!bulk || places.size() % 16 == 0) places.push_back(place);
    }
    for (std::string place : places)
      for (; !place.empty(); place.resize(place.rfind('/'))) {
        const nlohmann::json::json_pointer pointer(place);
        const nlohmann::json kept = json.at(pointer);
        for (const auto& value : strange) {
          json[pointer] = value;
          offer(json, cat(kind, place));
        }
        json[pointer] = kept;
      }
  }
  EXPECT_GT(refused, 2000);
  EXPECT_GT(taken, 100);
}

// Components that write more than they read, one behind the other.
TEST(TokenizerJson, TextsDoNotGrowWithoutEnd) {
  const auto sentence = [](const char* stage, const char* key, const nlohmann::json& part) {
    nlohmann::json json = {
        {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}}}, {"merges", nlohmann::json::array()}}}};
    json[stage] = {{"type", "Sequence"}, {key, std::vector<nlohmann::json>(60, part)}};
    try {
      const auto tokenizer = make_tokenizer({{"tokenizer.json", json.dump()}}, "m");
      tokenizer->decode(tokenizer->encode("a\xC3\xA9"));
    } catch (const Error& error) {
      return std::string(error.what()).substr(0, 38);
    }
    return std::string("no error");
  };
  const nlohmann::json twice = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  EXPECT_EQ(sentence("normalizer", "normalizers", twice), "the tokenizer turns this text into 104");
  EXPECT_EQ(sentence("decoder", "decoders", twice), "the tokenizer turns this text into 209");
  EXPECT_EQ(sentence("pre_tokenizer", "pretokenizers", {{"type", "ByteLevel"}, {"add_prefix_space", false}}),
            "the tokenizer turns this text into 104");
}

TEST(TokenizerJson, RefusesDeepNesting) {
  EXPECT_THROW(make_tokenizer({{"tokenizer.json", std::string(1 << 20, '[')}}, "m"), Error);
}

}  // namespace
}  // namespace plait
