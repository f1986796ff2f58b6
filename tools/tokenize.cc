// plait tokenize: text to ids and pieces, and back.
#include <CLI/CLI.hpp>

#include "runtime/base/error.h"
#include "runtime/text/utf8.h"
#include "tools/program.h"
#include "tools/verbs.h"

namespace plait {
namespace {

struct Tokenize {
  Common common;
  std::string model, text, file, ids;
  bool has_text = false, no_special = false;

  int run() const;
  Specials specials() const { return no_special ? Specials::without : Specials::with; }
  int back(const Model& opened, const Tokenizer& tokenizer) const;
};

// A piece as one visible word: quoted, with control characters and bad bytes escaped.
std::string quoted(const std::string& piece) {
  std::string text = "\"";
  for (std::size_t at = 0; at < piece.size();) {
    const Utf8Prefix prefix = first_character(std::string_view(piece).substr(at));
    const auto byte = static_cast<unsigned char>(piece[at]);
    if (prefix.state != Utf8Prefix::State::character || byte < ' ' || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", byte);
      text += escape;
      ++at;
    } else {
      if (byte == '"' || byte == '\\') text += '\\';
      text += piece.substr(at, prefix.bytes);
      at += prefix.bytes;
    }
  }
  return text + "\"";
}

int Tokenize::back(const Model& opened, const Tokenizer& tokenizer) const {
  const std::vector<Token> tokens = read_tokens(ids, std::min(opened.card().vocab, tokenizer.vocab()));
  const std::string bytes = tokenizer.decode(tokens, specials());
  if (!common.json_only()) print(bytes);
  flush_output();
  write_json(common, {{"model", opened.card().name},
                      {"tokens", tokens},
                      {"text", to_valid_utf8(bytes)},
                      {"bytes", bytes.size()},
                      {"special", !no_special}});
  return kDone;
}

int Tokenize::run() const {
  if (has_text + !file.empty() + !ids.empty() != 1)
    throw UsageError("give exactly one of TEXT, --text and --ids");
  const auto opened = open_model(model, common);
  const auto tokenizer = tokenizer_of(*opened);
  if (!ids.empty()) return back(*opened, *tokenizer);
  const std::string bytes = file.empty() ? text : read_file(file);
  const std::vector<Token> tokens = tokenizer->encode(bytes, specials());
  Json pieces = Json::array();
  std::string lines;
  for (const Token token : tokens) {
    const std::string piece = tokenizer->piece(token);
    if (!common.json.empty()) pieces.push_back(to_valid_utf8(piece));
    if (!common.json_only()) lines += cat(token, "\t", quoted(piece), "\n");
  }
  print(lines);
  flush_output();
  write_json(common, {{"model", opened->card().name},
                      {"tokenizer", tokenizer->kind()},
                      {"tokens", tokens},
                      {"pieces", std::move(pieces)},
                      {"bytes", bytes.size()},
                      {"special", !no_special}});
  return kDone;
}

}  // namespace

void add_tokenize(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Tokenize>();
  CLI::App* verb = program.add_subcommand("tokenize", "Show the tokens of a text, or the text of tokens");
  verb->add_option("MODEL", args->model, "A model file")->required();
  auto* text = verb->add_option("TEXT", args->text, "The text");
  verb->add_option("--text", args->file, "The text, from a file; - is standard input")->type_name("FILE");
  verb->add_option("--ids", args->ids, "Turn the ids of this file (text or .npy) back into text")
      ->type_name("FILE");
  verb->add_flag("--no-special", args->no_special, "Leave out the tokenizer's special tokens");
  add_common(*verb, args->common, "not used");
  verb->callback([args, text, &chosen] {
    args->has_text = text->count() > 0;
    chosen = [args] { return args->run(); };
  });
}

}  // namespace plait
