#include "runtime/text/compiled_tables.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/text/json_object.h"
#include "runtime/text/utf8.h"

namespace plait {
namespace {

static_assert(std::endian::native == std::endian::little, "tables are copied as they lie: little-endian");

constexpr std::string_view kMagic = "plaittok";
constexpr std::uint64_t kVersion = 1;

struct Preamble {
  char magic[8];
  std::uint64_t version;
  char source[64], contents[64];  // SHA-256 of tokenizer.json, and of everything behind the preamble
};
// In this order the sections follow.
struct Sizes {
  std::uint64_t settings, tokens, texts, merges, scores;  // bytes, entries, bytes, entries, entries
};
struct Entry {
  std::uint32_t id, length;
};
static_assert(sizeof(Preamble) == 144 && sizeof(Sizes) == 40 && sizeof(Entry) == 8 && sizeof(Merge) == 12);

void put(std::string& out, const void* data, std::size_t bytes) {
  if (bytes > 0) out.append(static_cast<const char*>(data), bytes);
}

template <class T>
void put(std::string& out, const std::vector<T>& list) {
  put(out, list.data(), list.size() * sizeof(T));
}

// Takes sections from the front of bytes whose total has been checked.
class Sections {
 public:
  explicit Sections(std::string_view bytes) : rest_(bytes) {}

  std::string_view text(std::uint64_t bytes) {
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(bytes));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  template <class T>
  std::vector<T> list(std::uint64_t count) {
    std::vector<T> out(static_cast<std::size_t>(count));
    const std::string_view bytes = text(count * sizeof(T));
    if (!bytes.empty()) std::memcpy(static_cast<void*>(out.data()), bytes.data(), bytes.size());
    return out;
  }

 private:
  std::string_view rest_;
};

[[noreturn]] void damaged(const std::string& where, const std::string& what) {
  fail(where, " is damaged: ", what);
}

Sizes checked_sizes(std::string_view contents, const std::string& where) {
  Sizes sizes;
  if (contents.size() < sizeof sizes)
    damaged(where, cat("it ends after ", contents.size(), " bytes of sizes"));
  std::memcpy(&sizes, contents.data(), sizeof sizes);
  const std::uint64_t limit = contents.size();
  const bool sane = sizes.settings <= limit && sizes.tokens <= limit && sizes.texts <= limit &&
                    sizes.merges <= limit && sizes.scores <= limit;
  const std::uint64_t wanted = sizeof sizes + sizes.settings + sizes.tokens * sizeof(Entry) + sizes.texts +
                               sizes.merges * sizeof(Merge) + sizes.scores * sizeof(double);
  if (!sane || wanted != limit)
    damaged(where, cat("its sections do not fill the ", limit, " bytes behind the preamble"));
  return sizes;
}

Vocabulary read_vocabulary(const std::vector<Entry>& entries, std::string_view texts,
                           const std::string& where) {
  Vocabulary vocabulary;
  vocabulary.reserve(static_cast<Index>(entries.size()), texts.size());
  std::int64_t last = -1;
  for (const Entry& entry : entries) {
    const std::string_view text = texts.substr(0, entry.length);
    if (text.size() != entry.length || entry.id <= last)
      damaged(where, cat("token ", entry.id, " of ", entry.length, " bytes cannot follow token ", last));
    if (!is_valid_utf8(text)) damaged(where, cat("the text of token ", entry.id, " is not UTF-8"));
    vocabulary.add(text, entry.id, where);
    texts.remove_prefix(text.size());
    last = entry.id;
  }
  if (!texts.empty()) damaged(where, cat(texts.size(), " bytes of text belong to no token"));
  return vocabulary;
}

void check_tables(const SubwordTables& tables, const std::string& where) {
  for (const Merge& merge : tables.merges)
    for (const Token token : {merge.left, merge.right, merge.merged})
      if (!tables.vocabulary.has(token))
        damaged(where, cat("a merge names token ", token, ", which is not in the vocabulary"));
  for (const double score : tables.scores)
    if (!std::isfinite(score)) damaged(where, "a score is not finite");
}

}  // namespace

TokenizerParts parse_parts(const std::string& text, const std::string& where) {
  TokenizerParts parts{parse_tokenizer_json(text, where), {}};
  JsonObject(parts.settings, where).at("model");
  parts.tables = take_tables(parts.settings["model"], where + ": model");
  return parts;
}

std::string write_compiled(const TokenizerParts& parts, std::string_view source) {
  const std::string settings = parts.settings.dump();
  const Vocabulary& vocabulary = parts.tables.vocabulary;
  std::vector<Entry> entries;
  std::string texts;
  for (Token id = 0; id < vocabulary.limit(); ++id) {
    if (!vocabulary.has(id)) continue;
    const std::string_view text = vocabulary.text(id);
    entries.push_back({static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(text.size())});
    texts += text;
  }
  const Sizes sizes{settings.size(), entries.size(), texts.size(), parts.tables.merges.size(),
                    parts.tables.scores.size()};
  std::string contents;
  put(contents, &sizes, sizeof sizes);
  contents += settings;
  put(contents, entries);
  contents += texts;
  put(contents, parts.tables.merges);
  put(contents, parts.tables.scores);
  return seal_compiled(contents, source);
}

std::string seal_compiled(std::string_view contents, std::string_view source) {
  Preamble preamble{};
  kMagic.copy(preamble.magic, sizeof preamble.magic);
  preamble.version = kVersion;
  sha256(source).copy(preamble.source, sizeof preamble.source);
  sha256(contents).copy(preamble.contents, sizeof preamble.contents);
  std::string out;
  put(out, &preamble, sizeof preamble);
  return out.append(contents);
}

std::optional<TokenizerParts> read_compiled(std::string_view bytes, std::string_view source,
                                            const std::string& where) {
  Preamble preamble{};
  std::memcpy(&preamble, bytes.data(), std::min(bytes.size(), sizeof preamble));
  if (bytes.substr(0, kMagic.size()) != kMagic || bytes.size() < offsetof(Preamble, source))
    damaged(where, cat("its ", bytes.size(), " bytes do not begin with '", kMagic, "' and a version"));
  if (preamble.version != kVersion) return std::nullopt;
  if (bytes.size() < sizeof preamble) damaged(where, cat("it ends after ", bytes.size(), " bytes"));
  if (std::string_view(preamble.source, sizeof preamble.source) != sha256(source)) return std::nullopt;
  const std::string_view contents = bytes.substr(sizeof preamble);
  const std::string found = sha256(contents);
  if (std::string_view(preamble.contents, sizeof preamble.contents) != found)
    damaged(where, cat("its contents have SHA-256 ", found, ", which is not what it says"));
  const Sizes sizes = checked_sizes(contents, where);
  Sections sections(contents.substr(sizeof sizes));
  TokenizerParts parts{parse_tokenizer_json(std::string(sections.text(sizes.settings)), where), {}};
  const auto entries = sections.list<Entry>(sizes.tokens);
  parts.tables.vocabulary = read_vocabulary(entries, sections.text(sizes.texts), where);
  parts.tables.merges = sections.list<Merge>(sizes.merges);
  parts.tables.scores = sections.list<double>(sizes.scores);
  check_tables(parts.tables, where);
  return parts;
}

}  // namespace plait
