// plait score: likelihood of a text.
#include <CLI/CLI.hpp>
#include <bit>
#include <cmath>
#include <numbers>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/run/stream.h"
#include "runtime/text/tokenizer.h"
#include "tools/likelihood.h"
#include "tools/npy.h"
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
  bool stream = false, no_special = false;

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
    if (!args.dump_logits.empty()) {
      dump_.emplace(args.dump_logits);
      dump_->write(npy_header_f32(length(), model_->card().vocab));
    }
  }

  void run() {
    const Index window = args_.context > 0 ? args_.context : length();
    for (Index begin = 0; begin < length(); begin += window)
      score_window(begin, std::min(begin + window, length()));
    seconds_ = watch_.seconds();
    progress_.clear();
  }

  Tally& tally() { return tally_; }
  const std::vector<Token>& tokens() const { return tokens_; }
  const StreamOptions& options() const { return options_; }
  double seconds() const { return seconds_; }
  void commit_dump() {
    if (dump_) dump_->commit();
  }

 private:
  Index length() const { return static_cast<Index>(tokens_.size()); }

  // One fresh stream over tokens [begin, end); its first token has no prediction and is not scored.
  void score_window(Index begin, Index end) {
    Stream stream(model_, options_);
    Index at = begin;
    for (std::size_t feed = 0; at < end; ++feed) {
      const Index count = split_.size(feed, end - at);
      const auto piece =
          std::span(tokens_).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
      stream.feed(piece,
                  [&](Index position, std::span<const float> row) { take(begin + position, end, row); });
      at += count;
      if (args_.common.memory > 0) check_budget(args_.common, *model_, stream.state_bytes());
    }
    tally_.state_bytes = stream.state_bytes();
  }

  // The logits after token `position` of the text.
  void take(Index position, Index end, std::span<const float> row) {
    tally_.logits.add(row.data(), row.size_bytes());
    if (dump_) dump_->write(row.data(), row.size_bytes());
    progress_.update(static_cast<double>(position + 1) / static_cast<double>(length()));
    if (position + 1 == end) return;
    const TokenScore score = score_token(row, tokens_[static_cast<std::size_t>(position + 1)]);
    tally_.nll.push_back(score.nll);
    tally_.top1.push_back(score.top1);
    tally_.position.push_back(position + 1);
  }

  const Score& args_;
  std::shared_ptr<const Model> model_;
  std::vector<Token> tokens_;
  Split split_;
  StreamOptions options_;
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

int Score::run() const {
  checked_split(split);
  const auto opened = open_model(model, common);
  const bool counts_bytes = !text.empty() || has_tokenizer(*opened);
  const auto tokenizer = counts_bytes ? tokenizer_of(*opened) : nullptr;
  std::vector<Token> ids =
      text.empty() ? read_tokens(tokens, opened->card().vocab)
                   : tokenizer->encode(read_file(text), no_special ? Specials::without : Specials::with);
  const std::string& source = text.empty() ? tokens : text;
  if (ids.size() < 2)
    fail("'", source, "' has ", ids.size(),
         " tokens; scoring needs two, because the first has no prediction");

  Scorer scorer(*this, opened, std::move(ids));
  scorer.run();
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
               {"bytes", tokenizer ? Json(bytes) : Json()},
               {"context", context > 0 ? Json(context) : Json("stream")},
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
      verb->add_option("--context", args->context,
                       "Disjoint windows of N tokens, each a fresh stream that scores its tokens 2 to N")
          ->check(CLI::Range(Index{2}, Index{1} << 40))
          ->type_name("N");
  verb->add_flag("--stream", args->stream, "One stream, its state never reset (default)")->excludes(context);
  verb->add_option("--split", args->split,
                   "Feed sizes, repeated cyclically: 1 or 7,64,1 or all (default); changes no bit")
      ->type_name("PATTERN");
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
