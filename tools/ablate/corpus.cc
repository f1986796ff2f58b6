#include "tools/ablate/corpus.h"

#include <algorithm>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "tools/program.h"

namespace plait::ablate {
namespace {

constexpr std::string_view kRecords = "jsonl:";

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

bool is_heading(std::string_view line) {
  while (!line.empty() && (line.back() == ' ' || line.back() == '\r')) line.remove_suffix(1);
  if (line.starts_with("# ")) return true;
  // WikiText: " = Title = "; deeper headings have more signs and belong to the article they are in.
  return line.starts_with(" = ") && line.ends_with(" =") && !line.ends_with("= =") && line.size() > 5 &&
         line[3] != '=';
}

// Appends the tokens of one document.
void append(Text::Sequence& sequence, std::string_view text, Index document, Specials specials,
            const Tokenizer& tokenizer) {
  for (const Token token : tokenizer.encode(text, specials)) {
    sequence.tokens.push_back(token);
    sequence.document.push_back(document);
    sequence.bytes.push_back(static_cast<Index>(piece_of(tokenizer, token).size()));
  }
}

void check(const Text& text, Index vocab) {
  for (const Text::Sequence& sequence : text.sequences)
    for (const Token token : sequence.tokens)
      if (token < 0 || token >= vocab)
        fail("'", text.file, "' has token ", token, ", outside the model's vocabulary of ", vocab);
  if (text.token_count() < 2)
    fail("'", text.file, "' has ", text.token_count(),
         " tokens; scoring needs two, because the first has no "
         "prediction");
}

Text::Sequence record(const std::string& line, const std::string& field, const std::string& where,
                      Index document, const Tokenizer& tokenizer) {
  Json json;
  try {
    json = Json::parse(line);
  } catch (const Json::exception&) {
    fail(where, " is no JSON object");
  }
  if (!json.is_object() || !json.contains(field) || !json[field].is_string())
    fail(where, " has no text '", field, "'");
  Text::Sequence sequence;
  append(sequence, json[field].get<std::string>(), document, Specials::with, tokenizer);
  return sequence;
}

}  // namespace

Index Text::token_count() const {
  Index sum = 0;
  for (const Sequence& sequence : sequences) sum += static_cast<Index>(sequence.tokens.size());
  return sum;
}

std::vector<std::size_t> document_starts(const std::string& text, const std::string& rule) {
  if (rule != "line" && rule != "blank" && rule != "heading")
    fail("documents are told apart by line, blank, heading or jsonl:FIELD, not by '", rule, "'");
  std::vector<std::size_t> starts = {0};
  bool after_blank = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line(text.data() + at, end - at);
    const bool blank = is_blank(line);
    const bool begins = rule == "line" ? !blank : rule == "blank" ? !blank && after_blank : is_heading(line);
    if (begins && at > 0) starts.push_back(at);
    after_blank = blank;
    at = end + 1;
  }
  return starts;
}

Text read_text(const std::string& file, const std::string& documents, const Tokenizer& tokenizer,
               Index vocab) {
  const std::string bytes = read_file(file);
  const auto slash = file.find_last_of('/');
  Text text{
      slash == std::string::npos ? file : file.substr(slash + 1), file, sha256(bytes), documents, {}, 0};
  if (documents.starts_with(kRecords)) {
    const std::string field = documents.substr(kRecords.size());
    if (field.empty()) fail("jsonl:FIELD needs the name of a field");
    Index number = 0;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t end = std::min(bytes.find('\n', at), bytes.size());
      const std::string line = bytes.substr(at, end - at);
      ++number;
      if (!is_blank(line))
        text.sequences.push_back(
            record(line, field, cat("'", file, "', line ", number), text.document_count++, tokenizer));
      at = end + 1;
    }
  } else {
    const std::vector<std::size_t> starts = document_starts(bytes, documents);
    Text::Sequence sequence;
    for (std::size_t d = 0; d < starts.size(); ++d) {
      const std::size_t end = d + 1 < starts.size() ? starts[d + 1] : bytes.size();
      append(sequence, std::string_view(bytes).substr(starts[d], end - starts[d]), static_cast<Index>(d),
             d == 0 ? Specials::with : Specials::without, tokenizer);
    }
    text.sequences.push_back(std::move(sequence));
    text.document_count = static_cast<Index>(starts.size());
  }
  check(text, vocab);
  return text;
}

std::vector<Unit> units_of(std::span<const Text> texts, int text, Index context, double share,
                           std::uint64_t seed) {
  std::vector<Unit> units;
  std::uint64_t first = 0;  // of the sequence, in the text
  const auto& sequences = texts[static_cast<std::size_t>(text)].sequences;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const auto length = static_cast<Index>(sequences[s].tokens.size());
    const Index window = context > 0 ? context : length;
    for (Index begin = 0; begin + 1 < length; begin += window) {
      Unit unit{text, context, static_cast<int>(s), begin, std::min(begin + window, length), {}};
      for (Index p = begin; p + 1 < unit.end; ++p) {
        const auto target = first + static_cast<std::uint64_t>(p + 1);
        if (share >= 1 || uniform_draw(seed, static_cast<std::uint64_t>(text), target) < share)
          unit.scored.push_back(p - begin);
      }
      if (!unit.scored.empty()) units.push_back(std::move(unit));
    }
    first += static_cast<std::uint64_t>(length);
  }
  return units;
}

}  // namespace plait::ablate
