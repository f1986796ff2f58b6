// plait run: generates text, printing as it goes.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/run/sampler.h"
#include "runtime/run/stream.h"
#include "tools/chat.h"
#include "tools/prefixes.h"
#include "tools/printer.h"
#include "tools/program.h"
#include "tools/verbs.h"
#include "weights/snapshot_file.h"

namespace plait {
namespace {

constexpr Index kPromptPiece = 512;      // tokens between two looks at progress and budget; changes no bit
constexpr double kTemperature = 0.8;     // of a run without flags; the other settings filter nothing
constexpr std::size_t kDecoderTail = 3;  // a character has at most 3 bytes before its last

struct Run {
  Common common;
  std::string model, prompt, prompt_file, load, save, edits;
  std::vector<std::string> stops;
  Index count = 256;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<Index> top_k, window;
  Index sinks = 0;
  bool no_special = false, ignore_eos = false, chat = false, resend = false;
  ChatSettings chat_settings;
  StoreFlags store;

  int run() const;
  int run_chat(const Tokenizer& tokenizer, std::shared_ptr<const Model> opened, Prefixes* prefixes) const;
  SamplerSettings sampler(const Json& saved) const;
  Stops what_stops(const Tokenizer& tokenizer) const;
};

// Saved settings, or the defaults, with what the flags say on top.
SamplerSettings Run::sampler(const Json& saved) const {
  SamplerSettings settings;
  settings.temperature = kTemperature;
  if (!saved.is_null()) settings = parse_sampler(saved);
  if (temperature) settings.temperature = *temperature;
  if (top_k) settings.top_k = *top_k;
  if (top_p) settings.top_p = *top_p;
  if (min_p) settings.min_p = *min_p;
  if (repetition_penalty) settings.repetition_penalty = *repetition_penalty;
  if (common.seed) settings.seed = *common.seed;
  return settings;
}

// The texts of --stop and, unless they are ignored, the tokenizer's own ends of a text.
Stops Run::what_stops(const Tokenizer& tokenizer) const {
  Stops what{stops, {}};
  if (ignore_eos) return what;
  const SpecialTokens special = tokenizer.special_tokens();
  what.tokens = special.eos;
  if (!special.eos_text.empty()) what.texts.push_back(special.eos_text);
  return what;
}

struct Prepared {
  Stream stream;
  Json sampler;
  Index known = 0;  // tokens of the prompt that it has been fed already
};

Prepared prepare(const Run& args, std::shared_ptr<const Model> model) {
  StreamOptions options;
  options.edits = read_edits(args.edits, args.window, args.sinks, *model);
  if (args.load.empty()) {
    options.compute = args.common.compute(Numerics::fast);
    return {Stream(std::move(model), options), Json()};
  }
  const Snapshot snapshot = load_snapshot(args.load);
  options.compute = compute_of(snapshot, args.load, args.common);
  try {
    return {Stream::restore(std::move(model), snapshot, options), snapshot.sampler};
  } catch (const Error& error) {
    fail("'", args.load, "': ", error.what());
  }
}

// Goes on to what a store has of the prompt behind what the stream was loaded with.
void look_up(const Run& args, std::shared_ptr<const Model> model, std::span<const Token> prompt,
             Prepared& prepared, Prefixes& prefixes) {
  Stream& stream = prepared.stream;
  if (stream.history().begin() > 0)
    fail("snapshot '", args.load, "' has no tokens before ", stream.history().begin(),
         "; a store finds whole texts");
  std::vector<Token> whole(stream.tokens().begin(), stream.tokens().end());
  const auto held = static_cast<Index>(whole.size());
  whole.insert(whole.end(), prompt.begin(), prompt.end());
  if (prefixes.extend(stream, std::move(model), whole, held)) prepared.known = stream.position() - held;
}

void feed_prompt(const Run& args, Stream& stream, std::span<const Token> tokens, Prefixes* prefixes) {
  Progress progress(args.common, "reading the prompt");
  for (std::size_t at = 0; at < tokens.size();) {
    Index piece = std::min(kPromptPiece, static_cast<Index>(tokens.size() - at));
    if (prefixes) piece = std::min(piece, prefixes->until_stop(stream.position()));
    stream.feed(tokens.subspan(at, static_cast<std::size_t>(piece)));
    at += static_cast<std::size_t>(piece);
    if (prefixes && prefixes->at_stop(stream.position())) prefixes->save(stream);
    progress.update(static_cast<double>(at) / static_cast<double>(tokens.size()));
    check_budget(args.common, stream.model(), stream.state_bytes());
  }
}

struct Generated {
  std::vector<Token> tokens;
  bool stopped = false;
};

// Every sampled token is fed, the last one too when the stream is saved: a loaded stream goes on as this one
// would.
Generated generate(const Run& args, Stream& stream, const Sampler& sampler, Printer& printer,
                   Prefixes* prefixes) {
  Generated generated;
  for (Index i = 0; i < args.count && !generated.stopped; ++i) {
    const Token token =
        sampler.draw(stream.logits(), stream.options().id, stream.position(), stream.tokens());
    generated.tokens.push_back(token);
    generated.stopped = !printer.push(token);
    const bool last = generated.stopped || i + 1 == args.count;
    if (!last || !args.save.empty()) {
      stream.feed(std::span(&token, 1), Origin::sampled);
      if (prefixes && prefixes->at_stop(stream.position())) prefixes->save(stream);
    }
    if (i % 64 == 63 && args.common.memory > 0)
      check_budget(args.common, stream.model(), stream.state_bytes());
  }
  printer.finish();
  return generated;
}

int Run::run_chat(const Tokenizer& tokenizer, std::shared_ptr<const Model> opened, Prefixes* prefixes) const {
  if (!load.empty()) throw UsageError("--chat begins a conversation of its own; it does not go with --load");
  Chat talk{common, chat_settings, tokenizer, what_stops(tokenizer), count, {}, prefixes};
  if (!prompt.empty() || !prompt_file.empty())
    talk.question = prompt_file.empty() ? prompt : read_file(prompt_file);
  Stream stream = prepare(*this, opened).stream;
  const Sampler sampler(this->sampler(Json()));
  const int code = converse(talk, std::move(opened), stream, sampler);
  if (!save.empty()) {
    Snapshot snapshot = stream.snapshot();
    snapshot.sampler = to_json(sampler.settings());
    save_snapshot(save, snapshot);
  }
  return code;
}

int Run::run() const {
  for (const std::string& stop : stops)
    if (stop.empty()) throw UsageError("--stop wants a text of at least one character");
  if (resend && load.empty()) throw UsageError("--resend wants a snapshot that holds the text: --load");
  if (!store.folder.empty() && resend)
    throw UsageError("--store and --resend both find what of a prompt is known; give one of them");
  if (!chat && chat_settings.given()) throw UsageError("--system, --tools and --chat-option want --chat");
  const std::string path = model.empty() ? bundled_model() : model;
  check_files({path, prompt_file, edits}, {save, common.json});
  const auto opened = open_model(path, common);
  const auto tokenizer = tokenizer_of(*opened);
  std::optional<Prefixes> store_of_prefixes;
  if (!store.folder.empty()) store_of_prefixes.emplace(store);
  Prefixes* const prefixes = store_of_prefixes ? &*store_of_prefixes : nullptr;
  if (chat) return run_chat(*tokenizer, opened, prefixes);
  const std::vector<Token> tokens = tokenizer->encode(prompt_file.empty() ? prompt : read_file(prompt_file),
                                                      no_special ? Specials::without : Specials::with);
  Stopwatch prompt_watch;
  Prepared prepared = prepare(*this, opened);
  Stream& stream = prepared.stream;
  if (prefixes) look_up(*this, opened, tokens, prepared, *prefixes);
  const Sampler sampler(this->sampler(prepared.sampler));
  if (sampler.settings().repetition_penalty != 1 && stream.history().begin() > 0)
    fail("snapshot '", load, "' has no tokens before ", stream.history().begin(),
         "; a repetition penalty looks at all of them");
  if (tokens.empty() && stream.position() == 0)
    fail(
        "the prompt is empty; give --prompt or --prompt-file a text of at least one token, or --load a "
        "snapshot");

  Index fed = static_cast<Index>(tokens.size()) - prepared.known;
  if (resend)
    fed = stream.resend(tokens).run;
  else
    feed_prompt(*this, stream, std::span(tokens).subspan(static_cast<std::size_t>(prepared.known)), prefixes);
  const double prompt_seconds = prompt_watch.seconds();
  if (stream.logits().empty()) fail("snapshot '", load, "' holds no logits to go on from; give a prompt");

  Printer printer(*tokenizer, what_stops(*tokenizer), !common.json_only());
  const auto context = stream.tokens();
  for (const Token token : context.last(std::min(context.size(), kDecoderTail))) printer.prime(token);
  Stopwatch watch;
  const Generated generated = generate(*this, stream, sampler, printer, prefixes);
  const double seconds = watch.seconds();
  if (prefixes) {
    prefixes->save(stream);  // the next turn's prompt begins with this reply
    prefixes->say(common);
  }

  if (!save.empty()) {
    Snapshot snapshot = stream.snapshot();
    snapshot.sampler = to_json(sampler.settings());
    save_snapshot(save, snapshot);
  }
  const auto rate = [](std::size_t n, double s) { return s > 0 ? static_cast<double>(n) / s : 0; };
  const double speed = rate(generated.tokens.size(), seconds);
  note(common, cat(generated.tokens.size(), " tokens in ", fixed(seconds, 2), " s, ", fixed(speed, 1),
                   " tokens/s; prompt of ", tokens.size(), " tokens in ", fixed(prompt_seconds, 2), " s"));
  const Compute& compute = stream.options().compute;
  write_json(common, {{"model", opened->card().name},
                      {"model_sha256", opened->digest()},
                      {"file", path},
                      {"prompt_tokens", tokens.size()},
                      {"prompt_tokens_run", fed},
                      {"tokens", generated.tokens},
                      {"text", printer.text()},
                      {"stopped", generated.stopped ? "stop" : "length"},
                      {"position", stream.position()},
                      {"sampler", to_json(sampler.settings())},
                      {"edits", stream.edits()},
                      {"special", !no_special},
                      {"numerics", name_of(compute.numerics)},
                      {"isa", name_of(compute.isa)},
                      {"threads", compute.threads},
                      {"arithmetic", stream.arithmetic()},
                      {"state_bytes", stream.state_bytes()},
                      {"store", prefixes ? prefixes->json() : Json()},
                      {"prompt_seconds", prompt_seconds},
                      {"prompt_tokens_per_second", rate(static_cast<std::size_t>(fed), prompt_seconds)},
                      {"seconds", seconds},
                      {"tokens_per_second", speed}});
  return kDone;
}

}  // namespace

void add_run(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Run>();
  CLI::App* verb = program.add_subcommand("run", "Generate text");
  verb->add_option("MODEL", args->model, "A model file (default: the bundled model)");
  auto* prompt = verb->add_option("--prompt", args->prompt, "The text to go on from")->type_name("TEXT");
  verb->add_option("--prompt-file", args->prompt_file, "The same, from a file; - is standard input")
      ->type_name("FILE")
      ->excludes(prompt);
  verb->add_flag(
      "--chat", args->chat,
      "A conversation by the model's chat template: one turn with a prompt, else a turn per line of input");
  add_chat_options(*verb, args->chat_settings);
  verb->add_option("-n", args->count, "Tokens to generate (default: 256)")
      ->check(CLI::Range(Index{0}, Index{1} << 40))
      ->type_name("N");
  verb->add_option("--temperature", args->temperature, "Logits are divided by it; 0 = greedy (default: 0.8)");
  verb->add_option("--top-k", args->top_k, "Only the k likeliest tokens; 0 = all (default)");
  verb->add_option("--top-p", args->top_p,
                   "Only the likeliest tokens up to this probability; 1 = all (default)");
  verb->add_option("--min-p", args->min_p,
                   "Only tokens this many times as likely as the likeliest (default: 0)");
  verb->add_option("--repetition-penalty", args->repetition_penalty,
                   "Above 1, tokens seen before get less likely");
  verb->add_option("--stop", args->stops, "Stop before this text; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  verb->add_flag("--ignore-eos", args->ignore_eos, "Go on behind the model's end-of-sequence tokens");
  verb->add_option("--load", args->load,
                   "Go on from this snapshot, with its numerics and sampling unless flags say otherwise")
      ->type_name("SNAP");
  verb->add_flag(
      "--resend", args->resend,
      "The prompt is the whole text from its begin: what the snapshot holds of it is not run again");
  verb->add_option("--save", args->save, "Save the stream at the end")->type_name("SNAP");
  add_store(*verb, args->store);
  add_edits(*verb, args->edits);
  add_window(*verb, args->window, args->sinks);
  verb->add_flag("--no-special", args->no_special, "Leave out the tokenizer's special tokens");
  add_common(*verb, args->common, "fast");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
