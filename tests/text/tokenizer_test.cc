#include "runtime/text/tokenizer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "runtime/base/error.h"

namespace plait {
namespace {

// The bits of a code point laid out by table 3-6 of the Unicode Standard, surrogates included: what an
// encoder that does not look would write.
std::string spell(std::uint32_t c) {
  const auto byte = [](std::uint32_t b) { return static_cast<char>(static_cast<unsigned char>(b)); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xC0 | c >> 6), byte(0x80 | (c & 63))};
  if (c < 0x10000) return {byte(0xE0 | c >> 12), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63))};
  return {byte(0xF0 | c >> 18), byte(0x80 | (c >> 12 & 63)), byte(0x80 | (c >> 6 & 63)),
          byte(0x80 | (c & 63))};
}

const std::string kText = "Was für ein Kätzchen \xF0\x9F\x90\x88, 東京!\n";

TEST(Utf8, EveryCodePoint) {
  for (std::uint32_t c = 0; c < 0x120000; ++c) {
    const std::string bytes = spell(c);
    const Utf8Prefix prefix = first_character(bytes);
    const bool scalar = c < 0x110000 && (c < 0xD800 || c > 0xDFFF);
    ASSERT_EQ(prefix.state == Utf8Prefix::State::character, scalar) << std::hex << c;
    if (!scalar) continue;
    ASSERT_EQ(prefix.bytes, bytes.size());
    for (std::size_t n = 1; n < bytes.size(); ++n) {
      const Utf8Prefix part = first_character(std::string_view(bytes).substr(0, n));
      ASSERT_EQ(part.state, Utf8Prefix::State::incomplete) << std::hex << c;
      ASSERT_EQ(part.bytes, n);
    }
  }
}

// Every lead byte with every second byte: what table 3-7 allows, and nothing else.
TEST(Utf8, EveryPairOfBytes) {
  for (int a = 0; a < 256; ++a)
    for (int b = 0; b < 256; ++b) {
      const std::string bytes = {static_cast<char>(a), static_cast<char>(b)};
      const bool second = a >= 0xC2 && a <= 0xF4 &&
                          b >= (a == 0xE0   ? 0xA0
                                : a == 0xF0 ? 0x90
                                            : 0x80) &&
                          b <= (a == 0xED   ? 0x9F
                                : a == 0xF4 ? 0x8F
                                            : 0xBF);
      const Utf8Prefix prefix = first_character(bytes);
      using State = Utf8Prefix::State;
      const State expected = a < 0x80   ? State::character
                             : !second  ? State::ill_formed
                             : a < 0xE0 ? State::character
                                        : State::incomplete;
      ASSERT_EQ(prefix.state, expected) << a << " " << b;
      ASSERT_EQ(prefix.bytes, second ? 2u : 1u) << a << " " << b;
    }
}

// The example of the Unicode Standard, section 3.9, table 3-11: one U+FFFD per maximal subpart.
TEST(Utf8, ReplacesMaximalSubparts) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(to_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80\x41"), r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("a\xF0\x9F\x90"), "a" + r);
  EXPECT_EQ(to_valid_utf8(kText), kText);
  EXPECT_EQ(to_valid_utf8(""), "");
}

TEST(Utf8, AStreamSplitAnywhereSaysTheSame) {
  const std::string bytes = kText + "\xFF\xE2\x82" + "x\xF0\x9F\x90\x88\xE6\x9D";
  const std::string whole = to_valid_utf8(bytes);
  for (std::size_t a = 0; a <= bytes.size(); ++a)
    for (std::size_t b = a; b <= bytes.size(); ++b) {
      Utf8Stream stream;
      std::string out;
      for (const auto& piece : {bytes.substr(0, a), bytes.substr(a, b - a), bytes.substr(b)}) {
        const std::string now = stream.push(piece);
        ASSERT_EQ(to_valid_utf8(now), now);  // never half a character
        out += now;
      }
      out += stream.finish();
      ASSERT_EQ(out, whole) << a << " " << b;
      ASSERT_EQ(stream.finish(), "");  // nothing is said twice
    }
}

TEST(ByteTokenizer, EveryByteIsItsOwnToken) {
  const ByteTokenizer tokenizer;
  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  const std::vector<Token> tokens = tokenizer.encode(all);
  ASSERT_EQ(tokens.size(), 256u);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(tokens[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(tokenizer.decode(tokens), all);
  EXPECT_EQ(tokenizer.vocab(), 256);
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(ByteTokenizer, RefusesTokensOutsideItsVocabulary) {
  const ByteTokenizer tokenizer;
  EXPECT_THROW(tokenizer.piece(256), Error);
  EXPECT_THROW(tokenizer.piece(-1), Error);
  EXPECT_THROW(tokenizer.decode(std::vector<Token>{65, 300}), Error);
}

TEST(ByteTokenizer, StreamsWholeCharacters) {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  std::string out;
  for (const Token token : tokenizer.encode(kText)) {
    const std::string now = decoder.push(token);
    EXPECT_EQ(to_valid_utf8(now), now);
    out += now;
  }
  EXPECT_EQ(out + decoder.finish(), kText);
  EXPECT_EQ(decoder.push(0xE6), "");
  EXPECT_EQ(decoder.finish(), "\xEF\xBF\xBD");
}

TEST(MakeTokenizer, SurvivesItsFiles) {
  const auto again = make_tokenizer(ByteTokenizer().files(), "m.h5");
  EXPECT_EQ(again->kind(), "bytes");
  EXPECT_EQ(again->files(), ByteTokenizer().files());
  EXPECT_EQ(make_tokenizer({}, "m.h5")->kind(), "bytes");
}

TEST(MakeTokenizer, RefusesWhatItCannotRead) {
  const auto sentence = [](const TokenizerFiles& files) {
    try {
      make_tokenizer(files, "m.h5");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(sentence({{"tokenizer.json", "{}"}}), "m.h5: tokenizer.json has no 'model'");
  EXPECT_EQ(sentence({{"vocab.txt", "a"}}),
            "m.h5: tokenizer file 'vocab.txt' is of no kind this plait reads; it reads tokenizer.json, "
            "tokenizer.model and plait_tokenizer.json");
  EXPECT_TRUE(
      sentence({{"tokenizer.model", "a"}}).starts_with("m.h5: tokenizer.model is not a sentencepiece model"));
  EXPECT_EQ(sentence({{"plait_tokenizer.json", R"({"kind": "words"})"}}),
            "m.h5: its tokenizer is of kind 'words'; this plait reads bytes");
  EXPECT_EQ(sentence({{"plait_tokenizer.json", "{"}}),
            "m.h5: tokenizer file 'plait_tokenizer.json' is not an object with a text 'kind'");
}

}  // namespace
}  // namespace plait
