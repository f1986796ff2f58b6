// Each component of a tokenizer.json by itself, on small inputs: stages.json has what Hugging Face tokenizers
// 0.23 makes of them, written by make_stages.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "runtime/text/decoder.h"
#include "runtime/text/normalizer.h"
#include "runtime/text/post_processor.h"
#include "runtime/text/pre_tokenizer.h"
#include "runtime/text/regex.h"
#include "runtime/text/tokenizer.h"

namespace plait {
namespace {

using nlohmann::json;

const json& stages() {
  static const json all = [] {
    std::ifstream file(PLAIT_SOURCE_DIR "/tests/text/stages.json");
    return json::parse(file);
  }();
  return all;
}

std::vector<std::string> pieces_of(const json& component, const std::string& text) {
  Pieces pieces{text, {}};
  if (!text.empty()) pieces.pieces.push_back({0, text.size(), true});
  make_pre_tokenizer(component, "p")->apply(pieces);
  std::vector<std::string> out;
  for (const auto& piece : pieces.pieces) out.emplace_back(pieces.view(piece));
  return out;
}

std::string decoded(const Decoder& decoder, const json& tokens) {
  Decoder::Stream stream = decoder.stream();
  std::string out;
  for (const auto& token : tokens) out += stream.push(token.get<std::string>());
  return out + stream.finish();
}

TEST(Stages, Normalizers) {
  ASSERT_GE(stages()["normalizer"].size(), 20u);
  for (const auto& item : stages()["normalizer"]) {
    const auto normalizer = make_normalizer(item["json"], "n");
    for (const auto& pair : item["cases"]) {
      Normalized text{pair[0]};
      normalizer->apply(text);
      EXPECT_EQ(text.text, pair[1]) << item["json"] << " of " << pair[0];
    }
  }
}

TEST(Stages, PreTokenizers) {
  ASSERT_GE(stages()["pre_tokenizer"].size(), 40u);
  for (const auto& item : stages()["pre_tokenizer"])
    for (const auto& pair : item["cases"])
      EXPECT_EQ(pieces_of(item["json"], pair[0]), pair[1].get<std::vector<std::string>>())
          << item["json"] << " of " << pair[0];
}

TEST(Stages, Decoders) {
  ASSERT_GE(stages()["decoder"].size(), 20u);
  for (const auto& item : stages()["decoder"]) {
    const Decoder decoder(item["json"], "d");
    for (const auto& pair : item["cases"])
      EXPECT_EQ(decoded(decoder, pair[0]), pair[1]) << item["json"] << " of " << pair[0];
  }
}

// The text's own ids are those of its characters in the vocabulary.
TEST(Stages, PostProcessors) {
  ASSERT_GE(stages()["post_processor"].size(), 12u);
  const auto letters = stages()["vocabulary"].get<std::vector<std::string>>();
  for (const auto& item : stages()["post_processor"]) {
    const PostProcessor around = make_post_processor(item["json"], "p", static_cast<Index>(letters.size()));
    for (const auto& pair : item["cases"]) {
      std::vector<Token> ids = around.before;
      for (const char c : pair[0].get<std::string>())
        ids.push_back(static_cast<Token>(std::find(letters.begin(), letters.end(), std::string(1, c)) -
                                         letters.begin()));
      ids.insert(ids.end(), around.after.begin(), around.after.end());
      EXPECT_EQ(ids, pair[1].get<std::vector<Token>>()) << item["json"] << " of " << pair[0];
    }
  }
}

TEST(Stages, AddedTokens) {
  ASSERT_GE(stages()["added_tokens"].size(), 30u);
  json model = {{"type", "BPE"}, {"merges", json::array()}, {"unk_token", "<unk>"}};
  for (const auto& letter : stages()["vocabulary"]) {
    const std::size_t id = model["vocab"].size();
    model["vocab"][letter.get<std::string>()] = id;
  }
  for (const auto& item : stages()["added_tokens"]) {
    const json file = {{"model", model},
                       {"added_tokens", item["json"]},
                       {"normalizer", {{"type", "Lowercase"}}},
                       {"decoder", {{"type", "Fuse"}}}};
    const auto tokenizer = make_tokenizer({{"tokenizer.json", file.dump()}}, "m");
    for (const auto& one : item["cases"]) {
      const auto ids = one[1].get<std::vector<Token>>();
      EXPECT_EQ(tokenizer->encode(one[0].get<std::string>()), ids) << item["json"] << " of " << one[0];
      EXPECT_EQ(tokenizer->decode(ids), one[2]) << item["json"] << " of " << one[0];
      EXPECT_EQ(tokenizer->decode(ids, Specials::without), one[3]) << item["json"] << " of " << one[0];
    }
  }
}

// What is no expression to Oniguruma is none here; the others mean the same, but for those plait refuses.
TEST(Stages, Expressions) {
  ASSERT_GE(stages()["regex"].size(), 60u);
  for (const auto& item : stages()["regex"]) {
    const json split = {
        {"type", "Split"}, {"pattern", {{"Regex", item["json"]}}}, {"behavior", "Removed"}, {"invert", true}};
    if (item["cases"].is_null() || item["json"] == R"((.)\1)") {
      EXPECT_THROW(make_pre_tokenizer(split, "p"), Error) << item["json"];
      continue;
    }
    for (const auto& pair : item["cases"])
      EXPECT_EQ(pieces_of(split, pair[0]), pair[1].get<std::vector<std::string>>())
          << item["json"] << " of " << pair[0];
  }
}

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Stages, ExpressionsInPcre2sSyntax) {
  const auto same = {
      R"(a|b)", R"([^\r\n]?)", R"(\d{1,3})", R"(\p{L}\P{Lu})", R"((?i:'s)|(?=x)(?!y)(?<=z)(?<!w))",
      R"(\.\-)"};
  for (const char* expression : same) EXPECT_EQ(to_pcre2(expression, "x"), expression);
  EXPECT_EQ(to_pcre2(R"(a{,3}{b}c{1,2,3})", "x"), R"(a{0,3}\{b}c\{1,2,3})");
  EXPECT_EQ(to_pcre2(R"(\h[\h_]\u00e9\x41\x{1f600}\v)", "x"),
            R"([0-9a-fA-F][0-9a-fA-F_]\x{00e9}\x41\x{1f600}\x0b)");
  EXPECT_EQ(to_pcre2(R"(\p{Han}\p{^Greek}\P{^Lu})", "x"), R"(\p{sc:Han}\P{sc:Greek}\p{Lu})");
  for (const auto& [expression, part] :
       std::map<std::string, std::string>{{R"([a[b]])", "a class inside a class"},
                                          {R"([a&&b])", "an intersection of classes"},
                                          {R"([]a])", "a ']' at the beginning of a class"},
                                          {R"((*FAIL))", "a verb"},
                                          {R"((?m)a)", "the option or group (?m)"},
                                          {R"((?R))", "the group (?R)"},
                                          {R"((a)\1)", R"('\1')"},
                                          {R"(\k<a>)", R"('\k')"},
                                          {R"(a{2}+)", "'}+'"},
                                          {R"([\W])", R"(\W in a class)"},
                                          {R"([\b])", R"(\b in a class)"},
                                          {R"(\u12)", R"('\u' without four digits)"},
                                          {R"(\x{zz})", R"('\x{' without digits)"},
                                          {R"(\xff)", R"('\x' of a byte that is no character)"},
                                          {R"(\pL)", R"('\p' without a name in braces)"},
                                          {R"(\p{Xan})", "the property 'Xan'"},
                                          {R"(\p{sc:Han})", "the property 'sc:Han'"},
                                          {R"(a\)", R"(a lone '\' at its end)"}})
    EXPECT_EQ(refusal([&] { to_pcre2(expression, "x"); }),
              cat("x: the expression '", expression, "' uses ", part, ", which this plait does not read"));
  EXPECT_EQ(refusal([] { to_pcre2(std::string(70000, 'a'), "x"); }),
            "x: an expression of 70000 bytes; at most 65536 are read");
  for (const char* broken : {"(", "a)", "[a", "*", R"(\p{Letter})", "a{3,1}", "(?<n>a", "[b-a]"})
    EXPECT_NE(refusal([&] { Regex(broken, "x"); }).find("' is not one this plait reads: "), std::string::npos)
        << broken;
}

TEST(Stages, ATemplateIsTheLastProcessor) {
  const json special = {{"id", "a"}, {"ids", {1}}, {"tokens", {"a"}}};
  const json around = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "a"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", json::array()},
      {"special_tokens", {{"a", special}}}};
  const json both = {{"type", "Sequence"}, {"processors", {around, around}}};
  EXPECT_EQ(make_post_processor(around, "p", 2).before, std::vector<Token>{1});
  EXPECT_EQ(refusal([&] { make_post_processor(both, "p", 2); }),
            "p.processors[1]: this plait does not read a processor behind a TemplateProcessing");
}

}  // namespace
}  // namespace plait
