// Byte-level byte-pair encoding: megabytes per second and thread, as ids and back, with a vocabulary trained
// here; loading tokenizer.json against the compiled tables; and inputs that make careless tokenizers
// quadratic: their time per byte at one length against 8 times the length. Times are the thread's own
// processor time. Ids that depend on the way of loading, or text that does not come back, print no figure.
// bench_tokenizer --help lists the flags.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "bench/byte_pair_trainer.h"
#include "bench/program.h"
#include "runtime/base/error.h"
#include "runtime/text/byte_alphabet.h"
#include "runtime/text/pre_tokenizer.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/unicode.h"

namespace plait {
namespace {

using nlohmann::json;

struct Settings {
  BenchFlags flags;
  std::string text;  // file; none: made up
  std::size_t vocabulary = 50000, document = 4096;
  double megabytes = 8;
};

template <class F>
double processor_seconds(F&& f) {
  const auto now = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double start = now();
  f();
  return now() - start;
}

// Pre-tokenizers of published models.
constexpr std::pair<const char*, const char*> kPatterns[] = {
    {"qwen2", R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
              R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"gpt2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}};

json pre_tokenizer_json(const char* pattern) {
  const json split = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}};
}

// Words of a language that is made up, the frequent ones short, with numbers, punctuation, lines, and some
// words of other scripts.
std::string made_text(std::size_t bytes) {
  std::mt19937 random(1);
  const auto below = [&](std::size_t n) { return random() % n; };
  static constexpr const char* kOnsets[] = {"b",  "c", "d", "f", "g",  "h",  "l",  "m", "n", "p",
                                            "qu", "r", "s", "t", "th", "st", "ch", "v", "w", ""};
  static constexpr const char* kRimes[] = {"a",  "e",  "i",  "o",  "u",   "an",  "er",  "in",  "on", "ar",
                                           "al", "or", "is", "us", "ing", "ent", "ion", "est", "y",  "ea"};
  std::vector<std::string> words(std::min<std::size_t>(80000, bytes / 20 + 100));
  for (std::size_t w = 0; w < words.size(); ++w) {
    if (w % 29 == 28) {
      const char32_t script = below(2) == 0 ? 0x430 : 0x4E00;
      for (std::size_t i = 1 + below(4); i > 0; --i)
        unicode::append(words[w], script + static_cast<char32_t>(below(script == 0x430 ? 32 : 2000)));
    } else {
      for (std::size_t i = 1 + below(w < 200 ? 2 : 4); i > 0; --i)
        words[w].append(kOnsets[below(std::size(kOnsets))]).append(kRimes[below(std::size(kRimes))]);
    }
  }
  static constexpr const char* kEnds[] = {", ", ". ", ".\n", "? ", "'s ", " - ", "; ", ".\n\n", " (", ") "};
  std::string text;
  while (text.size() < bytes) {
    const double u = std::generate_canonical<double, 32>(random);  // ranks as Zipf has them
    std::string word = words[static_cast<std::size_t>(std::pow(static_cast<double>(words.size()), u)) - 1];
    if (below(12) == 0 && word[0] >= 'a') word[0] = static_cast<char>(word[0] - ((word[0] & 0x80) ? 0 : 32));
    text += below(40) == 0 ? std::to_string(below(3000)) : word;
    text += below(7) == 0 ? kEnds[below(std::size(kEnds))] : " ";
  }
  return text;
}

std::string text_of(const Settings& s) {
  if (s.text.empty()) return made_text(static_cast<std::size_t>(s.megabytes * 1e6));
  std::ifstream file(s.text, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.empty()) fail("cannot read a text from '", s.text, "'");
  return to_valid_utf8(text);
}

std::vector<std::string> characters_of(std::string_view text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    unicode::next(text, at);
    out.emplace_back(text.substr(begin, at - begin));
  }
  return out;
}

// A tokenizer.json with merges learnt from `text`.
std::string trained(const std::string& text, const char* pattern, std::size_t size) {
  Pieces pieces{text, {{0, text.size(), true}}};
  make_pre_tokenizer(pre_tokenizer_json(pattern), "the benchmark's pre-tokenizer")->apply(pieces);
  std::unordered_map<std::string, std::int64_t> counts;
  for (const auto& piece : pieces.pieces) ++counts[std::string(pieces.view(piece))];
  std::string bytes(256, '\0');
  for (std::size_t b = 0; b < 256; ++b) bytes[b] = static_cast<char>(b);
  BytePairTrainer trainer(characters_of(to_byte_alphabet(bytes)));
  for (const auto& [word, count] : counts) trainer.add(characters_of(word), count);
  trainer.train(size);
  return json{{"version", "1.0"},
              {"normalizer", {{"type", "NFC"}}},
              {"pre_tokenizer", pre_tokenizer_json(pattern)},
              {"model", trainer.model()},
              {"decoder", {{"type", "ByteLevel"}}}}
      .dump();
}

std::vector<std::string> documents_of(const std::string& text, std::size_t size) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = std::min(at + size, text.size());
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    out.push_back(text.substr(at, end - at));
    at = end;
  }
  return out;
}

// Bytes per second of each thread, all of them at work.
double rate(const Settings& s, const std::vector<std::string>& documents, auto&& work) {
  std::vector<double> best(static_cast<std::size_t>(s.flags.threads),
                           std::numeric_limits<double>::infinity());
  parallel_for(s.flags.threads, s.flags.threads, [&](Index t) {
    for (Index r = 0; r < s.flags.repeat; ++r)
      best[static_cast<std::size_t>(t)] = std::min(best[static_cast<std::size_t>(t)], processor_seconds([&] {
                                                     for (std::size_t d = 0; d < documents.size(); ++d)
                                                       work(d);
                                                   }));
  });
  double bytes = 0, slowest = 0;
  for (const std::string& document : documents) bytes += static_cast<double>(document.size());
  for (const double time : best) slowest = std::max(slowest, time);
  return bytes / slowest;
}

void time_text(const Settings& s, const char* name, const Tokenizer& tokenizer, const std::string& text,
               std::size_t size) {
  const std::vector<std::string> documents = documents_of(text, size);
  std::vector<std::vector<Token>> ids;
  std::size_t count = 0;
  for (const std::string& document : documents) {
    ids.push_back(tokenizer.encode(document));
    count += ids.back().size();
    if (tokenizer.decode(ids.back()) != document) fail("a text does not come back from its ids");
  }
  const double there = rate(s, documents, [&](std::size_t d) { tokenizer.encode(documents[d]); });
  const double back = rate(s, documents, [&](std::size_t d) { tokenizer.decode(ids[d]); });
  std::printf("%-6s documents of %8zu bytes  encode %6.1f MB/s  decode %6.1f MB/s  %.2f bytes per token\n",
              name, std::min(size, text.size()), 1e-6 * there, 1e-6 * back,
              static_cast<double>(text.size()) / static_cast<double>(count));
}

void time_loading(const Settings& s, const TokenizerFiles& files, const std::string& text) {
  TokenizerFiles compiled = files;
  compiled[kCompiledTables] = compile_tokenizer(files, "the benchmark");
  if (make_tokenizer(files, "")->encode(text) != make_tokenizer(compiled, "")->encode(text))
    fail("the compiled tables give other ids");
  const auto time = [&](const TokenizerFiles& from) {
    double best = std::numeric_limits<double>::infinity();
    for (Index r = 0; r < s.flags.repeat; ++r)
      best = std::min(best, processor_seconds([&] { make_tokenizer(from, ""); }));
    return 1e3 * best;
  };
  std::printf("loading  tokenizer.json (%.1f MB) %7.1f ms  compiled tables (%.1f MB) %7.1f ms\n",
              1e-6 * static_cast<double>(files.at("tokenizer.json").size()), time(files),
              1e-6 * static_cast<double>(compiled.at(kCompiledTables).size()), time(compiled));
}

std::string repeated(const std::string& part, std::size_t bytes) {
  std::string out;
  while (out.size() < bytes) out += part;
  return out;
}

// What is long without an end of a piece in it, or breaks into very many.
std::vector<std::pair<const char*, std::string>> runs(std::size_t bytes) {
  std::mt19937 random(2);
  std::string noise(bytes, '\0'), word(bytes, '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  for (char& byte : word) byte = static_cast<char>('a' + random() % 26);
  return {{"one letter", repeated("a", bytes)},
          {"spaces", repeated(" ", bytes) + "a"},
          {"line breaks", repeated("\n", bytes)},
          {"spaces and breaks", repeated("   \n", bytes)},
          {"digits", repeated("1234567890", bytes)},
          {"punctuation", repeated("!?", bytes)},
          {"apostrophes", repeated("'", bytes)},
          {"emoji", repeated("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7", bytes)},
          {"combining marks", "a" + repeated("\xCC\x81\xCC\xA3", bytes)},
          {"random bytes", noise},
          {"one long word", word},
          {"one syllable", repeated("ing", bytes)}};
}

void time_runs(const Settings& s, const char* name, const Tokenizer& tokenizer) {
  const std::size_t bytes = s.flags.smoke ? 4096 : 65536, more = 8;
  const auto small = runs(bytes), large = runs(more * bytes);
  const auto time = [&](const std::string& text) {
    double best = std::numeric_limits<double>::infinity();
    for (Index r = 0; r < std::max<Index>(3, s.flags.repeat); ++r)
      best = std::min(best, processor_seconds([&] { tokenizer.encode(text); }));
    return 1e9 * best / static_cast<double>(text.size());
  };
  for (std::size_t i = 0; i < small.size(); ++i) {
    const double once = time(small[i].second), longer = time(large[i].second);
    std::printf("%-6s %-18s %7.1f ns per byte at %zu bytes, %7.1f at %zu, ratio %.2f\n", name, small[i].first,
                once, bytes, longer, more * bytes, longer / once);
  }
}

void report(const Settings& s) {
  const std::string text = text_of(s);
  std::printf("%.1f MB of %s, %d threads, best of %ld\n", 1e-6 * static_cast<double>(text.size()),
              s.text.empty() ? "made-up text" : s.text.c_str(), s.flags.threads,
              static_cast<long>(s.flags.repeat));
  for (const auto& [name, pattern] : kPatterns) {
    const TokenizerFiles files = {{"tokenizer.json", trained(text, pattern, s.vocabulary)}};
    const auto tokenizer = make_tokenizer(files, "the benchmark's tokenizer");
    std::printf("%-6s vocabulary of %td\n", name, tokenizer->vocab());
    time_loading(s, files, text);
    for (const std::size_t size : {s.document, text.size()}) time_text(s, name, *tokenizer, text, size);
    time_runs(s, name, *tokenizer);
  }
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::Settings s;
  CLI::App app("Byte-level byte-pair encoding: speed, loading, long runs.", "bench_tokenizer");
  app.add_option("TEXT", s.text, "A text to train on and to encode (default: made up)");
  app.add_option("--vocabulary", s.vocabulary, "Tokens to train")
      ->check(CLI::Range(256, 1 << 20))
      ->capture_default_str();
  app.add_option("--document", s.document, "Bytes of a short text")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--megabytes", s.megabytes, "Of made-up text")
      ->check(CLI::Range(0.01, 500.0))
      ->capture_default_str();
  s.flags.add_to(app);
  return plait::run_bench(app, argc, argv, [&] {
    if (s.flags.smoke) {
      s.megabytes = 0.2;
      s.vocabulary = 1000;
      s.flags.repeat = 1;
    }
    plait::report(s);
  });
}
