// plait score: likelihood of a text.
#include <CLI/CLI.hpp>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/run/encoder.h"
#include "runtime/run/stream.h"
#include "runtime/text/tokenizer.h"
#include "tools/likelihood.h"
#include "tools/npy.h"
#include "tools/prefixes.h"
#include "tools/program.h"
#include "tools/verbs.h"
#include "weights/array_file.h"

namespace plait {
namespace {

static_assert(std::endian::native == std::endian::little,
              "logits are digested and dumped as they lie in memory");

struct Score {
  Common common;
  std::string model, text, tokens, split = "all", edits, dump_logits, per_token;
  Index context = 0, sinks = 0;
  std::optional<Index> window;
  std::optional<Token> mask;
  bool stream = false, no_special = false;
  StoreFlags store;

  int run() const;
};

// What is gathered row by row.
struct Tally {
  Digest logits;
  std::vector<double> nll;  // per scored token
  std::vector<std::int64_t> position;
  std::vector<std::uint8_t> top1;
  std::size_t state_bytes = 0;
};

// What a prefix store keeps with the tokens of an entry, so that they need not be scored again: per token its
// nats and whether it was the likeliest (zeros for the first of a text), then the digest of all logits up to
// there.
constexpr const char* kNotes = "scores 1";
constexpr std::size_t kNoteBytes = sizeof(double) + 1;

std::string notes_of(const Tally& tally, Index begin, Index end) {
  std::string nats, top1;
  for (Index token = begin; token < end; ++token) {
    const auto scored = static_cast<std::size_t>(token - 1);  // the first token of a text is not
    const double nll = token > 0 ? tally.nll[scored] : 0;
    nats.append(reinterpret_cast<const char*>(&nll), sizeof nll);
    top1 += static_cast<char>(token > 0 ? tally.top1[scored] : 0);
  }
  return nats + top1 + tally.logits.saved();
}

// False, and the tally as it was, if these are no such notes of `tokens` tokens.
bool take_notes(const std::vector<std::string>& notes, Index tokens, Tally& tally) {
  Tally taken;
  Index token = 0;
  const std::size_t digest_bytes = taken.logits.saved().size();
  for (const std::string& note : notes) {
    const std::size_t count = (note.size() - std::min(note.size(), digest_bytes)) / kNoteBytes;
    if (note.size() != count * kNoteBytes + digest_bytes) return false;
    for (std::size_t i = 0; i < count; ++i, ++token) {
      if (token == 0) continue;
      double nll = 0;
      std::memcpy(&nll, note.data() + i * sizeof nll, sizeof nll);
      taken.nll.push_back(nll);
      taken.top1.push_back(static_cast<std::uint8_t>(note[count * sizeof nll + i]));
      taken.position.push_back(token);
    }
  }
  if (token != tokens) return false;
  if (!notes.empty()) {
    const std::string_view digest = std::string_view(notes.back()).substr(notes.back().size() - digest_bytes);
    if (!Digest::can_resume(digest)) return false;
    taken.logits = Digest::resume(digest);
  }
  tally = std::move(taken);
  return true;
}

class Scorer {
 public:
  Scorer(const Score& args, std::shared_ptr<const Model> model, std::vector<Token> tokens)
      : args_(args),
        model_(std::move(model)),
        tokens_(std::move(tokens)),
        split_(args.split),
        progress_(args.common, "scoring") {
    options_.compute = args.common.compute(Numerics::exact);
    options_.edits = read_edits(args.edits, args.window, args.sinks, *model_);
    if (!model_->card().causal) plan_.emplace(*model_, options_.edits);
    if (!args.store.folder.empty()) prefixes_.emplace(args.store);
    if (!args.dump_logits.empty()) {
      dump_.emplace(args.dump_logits);
      dump_->write(npy_header_f32(length(), model_->card().vocab));
    }
  }

  void run() {
    const Index window = args_.context > 0 ? args_.context : length();
    for (Index begin = 0; begin < length(); begin += window) {
      const Index end = std::min(begin + window, length());
      if (model_->card().causal)
        score_window(begin, end);
      else if (args_.mask)
        score_masked(begin, end);
      else
        score_reconstruction(begin, end);
    }
    seconds_ = watch_.seconds();
    progress_.clear();
  }

  Tally& tally() { return tally_; }
  const std::vector<Token>& tokens() const { return tokens_; }
  const StreamOptions& options() const { return options_; }
  double seconds() const { return seconds_; }
  const Prefixes* prefixes() const { return prefixes_ ? &*prefixes_ : nullptr; }
  void commit_dump() {
    if (dump_) dump_->commit();
  }

 private:
  Index length() const { return static_cast<Index>(tokens_.size()); }

  // One fresh stream over tokens [begin, end); its first token has no prediction and is not scored.
  void score_window(Index begin, Index end) {
    Stream stream = prefixes_ ? stored() : Stream(model_, options_);
    Index at = begin + stream.position();
    if (stream.position() > 0) score_target(at, end, stream.logits());
    for (std::size_t feed = 0; at < end; ++feed) {
      Index count = split_.size(feed, end - at);
      if (prefixes_) count = std::min(count, prefixes_->until_stop(at));
      const auto piece =
          std::span(tokens_).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
      stream.feed(piece, [&](Index position, std::span<const float> row) {
        take(begin + position, begin + position + 1, end, row);
      });
      at += count;
      if (prefixes_ && prefixes_->at_stop(at))
        prefixes_->save(stream, notes_of(tally_, PrefixStore::base(prefixes_->found().owner, at), at));
      if (args_.common.memory > 0) check_budget(args_.common, *model_, stream.state_bytes());
    }
    tally_.state_bytes = stream.state_bytes();
  }

  // The stream after what the store has of the text, which is not scored again.
  Stream stored() {
    Stream stream = prefixes_->begin(model_, options_, tokens_, kNotes);
    if (!take_notes(prefixes_->found().notes, stream.position(), tally_))
      fail("the store '", args_.store.folder, "' holds scores of another form; remove it");
    return stream;
  }

  std::span<const Token> window(Index begin, Index end) const {
    return std::span(tokens_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  }

  RunOptions encoder_options() const {
    RunOptions options;
    options.compute = options_.compute;
    return options;
  }

  // An encoder on tokens [begin, end): every token under the outputs of its own place, which has seen it.
  void score_reconstruction(Index begin, Index end) {
    const std::span<const Token> tokens = window(begin, end);
    encode_batch(
        *model_, {&tokens, 1}, encoder_options(),
        [&](std::size_t, View<const float> output) {
          for (Index r = 0; r < output.rows; ++r)
            take(begin + r, begin + r, end, {output.row(r), static_cast<std::size_t>(output.cols)});
        },
        &*plan_);
  }

  // An encoder on tokens [begin, end): every token under the outputs of its place when the mask stands there
  // and all others are seen (pseudo-likelihood, arXiv 1910.14659). Some masked copies at a time.
  void score_masked(Index begin, Index end) {
    const std::span<const Token> tokens = window(begin, end);
    const Index copies = std::max<Index>(1, encoder_options().row_block / (end - begin));
    for (Index first = begin; first < end; first += copies) {
      const Index count = std::min(copies, end - first);
      std::vector<std::vector<Token>> masked(static_cast<std::size_t>(count), {tokens.begin(), tokens.end()});
      for (Index i = 0; i < count; ++i)
        masked[static_cast<std::size_t>(i)][static_cast<std::size_t>(first + i - begin)] = *args_.mask;
      const std::vector<std::span<const Token>> sequences(masked.begin(), masked.end());
      encode_batch(
          *model_, sequences, encoder_options(),
          [&](std::size_t i, View<const float> output) {
            const Index position = first + static_cast<Index>(i);
            take(position, position, end,
                 {output.row(position - begin), static_cast<std::size_t>(output.cols)});
          },
          &*plan_);
    }
  }

  // The logits after token `position` of the text, or of an encoder at it, which are about token `target`.
  void take(Index position, Index target, Index end, std::span<const float> row) {
    tally_.logits.add(row.data(), row.size_bytes());
    if (dump_) dump_->write(row.data(), row.size_bytes());
    progress_.update(static_cast<double>(position + 1) / static_cast<double>(length()));
    score_target(target, end, row);
  }

  void score_target(Index target, Index end, std::span<const float> row) {
    if (target == end) return;
    const TokenScore score = score_token(row, tokens_[static_cast<std::size_t>(target)]);
    tally_.nll.push_back(score.nll);
    tally_.top1.push_back(score.top1);
    tally_.position.push_back(target);
  }

  const Score& args_;
  std::shared_ptr<const Model> model_;
  std::vector<Token> tokens_;
  Split split_;
  StreamOptions options_;
  std::optional<EditPlan> plan_;  // of an encoder
  std::optional<Prefixes> prefixes_;
  std::optional<OutputFile> dump_;
  Tally tally_;
  Progress progress_;
  Stopwatch watch_;
  double seconds_ = 0;
};

Split checked_split(const std::string& pattern) {
  try {
    return Split(pattern);
  } catch (const Error& error) {
    throw UsageError(cat("--split: ", error.what()));
  }
}

Json edits_json(const EditList& edits) {
  Json list = Json::array();
  for (const Edit& edit : edits) list.push_back(to_json(edit));
  return list;
}

void write_per_token(const std::string& path, const Scorer& scorer, const Tally& tally) {
  std::vector<std::int64_t> ids, top1(tally.top1.begin(), tally.top1.end());
  for (const std::int64_t p : tally.position) ids.push_back(scorer.tokens()[static_cast<std::size_t>(p)]);
  ArrayFile file(path);
  file.add("position", tally.position);
  file.add("token", ids);
  file.add("nll", tally.nll);
  file.add("top1", top1);
  file.finish();
}

// Throws what says why the flags and the model do not go together.
void check_model(const Score& args, const Model& model) {
  const auto refuse = [&](const char* flag, const char* reason) {
    fail(flag, " ", reason, ", and model '", model.card().name, "' is ",
         model.card().causal ? "causal" : "an encoder (\"causal\": false)");
  };
  if (model.card().causal) {
    if (args.mask) refuse("--mask", "is for encoders");
    return;
  }
  if (args.stream) refuse("--stream", "goes along a text");
  if (args.split != "all") refuse("--split", "feeds a stream");
  if (args.window) refuse("--window", "acts on streams");
  if (!args.store.folder.empty()) refuse("--store", "keeps streams");
  const Index width = model.width(model.graph().output());
  if (width != model.card().vocab)
    fail("model '", model.card().name, "' gives ", width,
         " numbers a token, not logits over its vocabulary of ", model.card().vocab,
         "; there is nothing to score");
  if (args.mask && (*args.mask < 0 || *args.mask >= model.card().vocab))
    fail("--mask is ", *args.mask, ", outside the vocabulary of ", model.card().vocab);
}

// What the negative log-likelihoods are of.
struct Objective {
  const char *name, *text;
};

Objective objective_of(const Score& args, const Model& model) {
  if (model.card().causal) return {"next_token", "each token after those before it"};
  if (args.mask) return {"masked", "each token from all others, the mask in its place (pseudo-likelihood)"};
  return {"reconstruction", "each token from the whole text, itself included; --mask hides it"};
}

int Score::run() const {
  if (!store.folder.empty() && (context > 0 || !dump_logits.empty()))
    throw UsageError(
        "--store holds one stream's scores, not windows or all logits; it does not go with --context or "
        "--dump-logits");
  checked_split(split);
  check_files({model, text, tokens, edits}, {dump_logits, per_token, common.json});
  const auto opened = open_model(model, common);
  check_model(*this, *opened);
  const bool counts_bytes = !text.empty() || has_tokenizer(*opened);
  const auto tokenizer = counts_bytes ? tokenizer_of(*opened) : nullptr;
  std::vector<Token> ids =
      text.empty() ? read_tokens(tokens, opened->card().vocab)
                   : tokenizer->encode(read_file(text), no_special ? Specials::without : Specials::with);
  const std::string& source = text.empty() ? tokens : text;
  const bool causal = opened->card().causal;
  if (ids.size() < (causal ? 2u : 1u))
    fail("'", source, "' has ", ids.size(), " tokens; scoring needs ",
         causal ? "two, because the first has no prediction" : "one");

  Scorer scorer(*this, opened, std::move(ids));
  scorer.run();
  if (scorer.prefixes()) scorer.prefixes()->say(common);
  Tally& tally = scorer.tally();
  const Mean nll = mean_of(tally.nll);
  double correct = 0, bytes = 0, total = 0;
  for (const std::uint8_t hit : tally.top1) correct += hit;
  for (const double v : tally.nll) total += v;
  for (const std::int64_t p : tally.position)
    if (tokenizer)
      bytes += static_cast<double>(piece_of(*tokenizer, scorer.tokens()[static_cast<std::size_t>(p)]).size());
  const double scored = static_cast<double>(tally.nll.size());
  const Json bits_per_byte = tokenizer ? Json(total / std::numbers::ln2 / bytes) : Json();
  const double rate = static_cast<double>(scorer.tokens().size()) / scorer.seconds();
  const std::string digest = tally.logits.hex();
  const Compute& compute = scorer.options().compute;

  if (!common.json_only()) {
    std::vector<std::vector<std::string>> rows = {
        {"tokens", cat(scorer.tokens().size(), ", ", tally.nll.size(), " scored")},
        {"objective", objective_of(*this, *opened).text},
        {"nats per token", cat(fixed(nll.value, 5), " +- ", fixed(nll.standard_error, 5))},
        {"bits per byte",
         tokenizer ? fixed(bits_per_byte.get<double>(), 5) : "unknown: the model has no tokenizer"},
        {"perplexity", fixed(std::exp(nll.value), 4)},
        {"top-1", cat(fixed(100 * correct / scored, 2), " %")},
        {"logits sha256", digest},
        {"numerics",
         cat(name_of(compute.numerics), ", ", name_of(compute.isa), ", ", compute.threads, " threads")},
        {"time", cat(fixed(scorer.seconds(), 2), " s, ", fixed(rate, 0), " tokens/s")}};
    print(table(rows, "ll"));
  }
  Json arithmetic_json = arithmetic(opened->card(), compute);
  arithmetic_json["digest"] = arithmetic_digest(opened->card(), compute);
  Json json = {{"model", opened->card().name},
               {"model_sha256", opened->digest()},
               {"file", model},
               {"text", source},
               {"tokens", scorer.tokens().size()},
               {"scored", tally.nll.size()},
               {"objective", objective_of(*this, *opened).name},
               {"bytes", tokenizer ? Json(bytes) : Json()},
               {"context", context > 0 ? Json(context) : Json(causal ? "stream" : "whole")},
               {"split", split},
               {"edits", edits_json(scorer.options().edits)},
               {"special", !no_special},
               {"nll", nll.value},
               {"nll_stderr", nll.standard_error},
               {"bits_per_byte", bits_per_byte},
               {"perplexity", std::exp(nll.value)},
               {"top1", correct / scored},
               {"numerics", name_of(compute.numerics)},
               {"isa", name_of(compute.isa)},
               {"threads", compute.threads},
               {"arithmetic", std::move(arithmetic_json)},
               {"state_bytes", tally.state_bytes},
               {"store", scorer.prefixes() ? scorer.prefixes()->json() : Json()},
               {"seconds", scorer.seconds()},
               {"tokens_per_second", rate},
               {"logits_sha256", digest}};
  flush_output();
  scorer.commit_dump();
  if (!per_token.empty()) write_per_token(per_token, scorer, tally);
  write_json(common, json);
  return kDone;
}

}  // namespace

void add_score(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Score>();
  CLI::App* verb = program.add_subcommand("score", "Likelihood of a text");
  verb->add_option("MODEL", args->model, "A model file")->required();
  auto* input = verb->add_option_group("input", "What is scored");
  input->add_option("--text", args->text, "A text file; - is standard input");
  input->add_option("--tokens", args->tokens,
                    "Token ids: text separated by white space, or .npy of int32 or int64");
  input->require_option(1);
  auto* context =
      verb->add_option(
              "--context", args->context,
              "Disjoint windows of N tokens, each a fresh stream that scores its tokens 2 to N, or a "
              "sequence for an encoder, which scores all")
          ->check(CLI::Range(Index{2}, Index{1} << 40))
          ->type_name("N");
  verb->add_flag("--stream", args->stream, "One stream, its state never reset (default)")->excludes(context);
  verb->add_option("--split", args->split,
                   "Feed sizes, repeated cyclically: 1 or 7,64,1 or all (default); changes no bit")
      ->type_name("PATTERN");
  add_store(*verb, args->store);
  verb->add_option("--mask", args->mask,
                   "An encoder's mask token: each token is scored with this id in its place")
      ->type_name("ID");
  add_edits(*verb, args->edits);
  add_window(*verb, args->window, args->sinks);
  verb->add_flag("--no-special", args->no_special, "Leave out the tokenizer's special tokens");
  verb->add_option("--dump-logits", args->dump_logits,
                   "Write float32 [tokens, vocab], row t = logits after token t")
      ->type_name("F.npy");
  verb->add_option("--per-token", args->per_token,
                   "Write position, token, nll and top1 of every scored token (HDF5)")
      ->type_name("F.h5");
  add_common(*verb, args->common, "exact");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
