#include "tools/probe/long_context.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/base/error.h"
#include "runtime/base/words.h"
#include "runtime/run/edit_plan.h"
#include "runtime/run/stream.h"
#include "runtime/run/windows.h"
#include "tools/ablate/sites.h"
#include "tools/plot/chart.h"
#include "tools/plot/line_colour.h"

namespace plait::probe {
namespace {

constexpr Index kFirstBin = 64;
constexpr Index kFeed = 512;  // tokens between two reports of progress
constexpr double kQuantile = 1.96;
constexpr char kWithout[] = "without ";
constexpr char kNone[] = "none";
constexpr std::uint64_t kSeed = 1;
constexpr const char* kTasks[] = {"needle", "recall", "copying"};

plot::Effect effect_of(const Mean& mean) {
  return {mean.value, mean.value - kQuantile * mean.standard_error,
          mean.value + kQuantile * mean.standard_error};
}

Json to_json(const EditList& edits) {
  Json list = Json::array();
  for (const Edit& edit : edits) list.push_back(plait::to_json(edit));
  return list;
}

// Of the tokens that are predicted from [bin.begin, bin.end) tokens; losses[t - 1] is that of token t.
Mean mean_in(const std::vector<double>& losses, const ContextBin& bin) {
  return mean_of(std::span(losses).subspan(static_cast<std::size_t>(bin.begin - 1),
                                           static_cast<std::size_t>(bin.end - bin.begin)));
}

template <class T>
bool holds(const std::vector<T>& values, const T& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

template <class T>
std::optional<T> repeated(const std::vector<T>& values) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (std::find(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(i), values[i]) !=
        values.begin() + static_cast<std::ptrdiff_t>(i))
      return values[i];
  return {};
}

// The edits that zero the mixers of each kind, by kind.
std::map<std::string, EditList> mixers_off(const Model& model) {
  const ablate::Components components = ablate::components_of(model);
  const ablate::Pool pool =
      ablate::pool_of(model, components, {ablate::find_alias("mixer.zero"), {}}, ablate::Grain::by_kind);
  std::map<std::string, EditList> off;
  for (const std::string& kind : ablate::kinds_of(pool))
    for (const int place : ablate::places_of_kind(pool, components, kind))
      off[kind].push_back(pool.edits[static_cast<std::size_t>(place)]);
  return off;
}

}  // namespace

std::vector<ContextBin> context_bins(Index tokens) {
  std::vector<ContextBin> bins;
  for (Index begin = 1, end = kFirstBin; begin < tokens; begin = end, end *= 2)
    bins.push_back({begin, std::min(end, tokens)});
  return bins;
}

std::vector<Variant> long_context_variants(const Model& model, Index window, Index sinks,
                                           const std::vector<std::string>& off,
                                           std::vector<std::string>& notes) {
  std::vector<Variant> variants = {{"whole", {}}};
  if (window > 0) try {
      variants.push_back({cat("window ", window), window_edits(model, window, sinks)});
    } catch (const Error& error) {
      notes.push_back(cat("no window: ", error.what()));
    }
  const bool asked = !off.empty();
  if (off == std::vector<std::string>{kNone}) return variants;
  std::map<std::string, EditList> kinds;
  try {
    kinds = mixers_off(model);
  } catch (const Error& error) {
    if (asked) throw;
    notes.push_back(cat("no mixer is taken out: ", error.what()));
  }
  std::vector<std::string> names;
  for (const auto& [kind, edits] : kinds) names.push_back(kind);
  for (const std::string& kind : asked ? off : names) {
    if (!kinds.count(kind))
      fail("'", model.data().origin, "' has no mixer of kind '", kind, "'; there are ", joined(names));
    variants.push_back({cat(kWithout, kind), kinds[kind]});
  }
  return variants;
}

std::vector<double> losses_by_position(std::shared_ptr<const Model> model, const EditList& edits,
                                       std::span<const Token> tokens, const Compute& compute,
                                       const std::function<void(Index seen)>& seen) {
  StreamOptions options;
  options.compute = compute;
  options.edits = edits;
  Stream stream(std::move(model), options);
  std::vector<double> losses;
  const auto context = tokens.first(tokens.size() - 1);
  while (losses.size() < context.size()) {
    const std::size_t count = std::min<std::size_t>(kFeed, context.size() - losses.size());
    stream.feed(context.subspan(losses.size(), count), [&](Index position, std::span<const float> logits) {
      losses.push_back(score_token(logits, tokens[static_cast<std::size_t>(position) + 1]).nll);
    });
    if (seen) seen(static_cast<Index>(losses.size()));
  }
  return losses;
}

std::vector<double> restarted_losses(std::shared_ptr<const Model> model, std::span<const Token> tokens,
                                     Index window, Index stride, const Compute& compute,
                                     const std::function<void(Index seen)>& seen) {
  StreamOptions options;
  options.compute = compute;
  const Index count = std::ssize(tokens);
  std::vector<double> losses;
  for (Index first = 1; first < count; first += stride) {  // the tokens [first, end) are scored
    const Index end = std::min(first + stride, count),
                begin = std::max<Index>(0, first + stride - 1 - window);
    Stream stream(model, options);
    stream.feed(tokens.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - 1 - begin)),
                [&](Index position, std::span<const float> logits) {
                  const Index target = begin + position + 1;
                  if (target < first) return;
                  losses.push_back(score_token(logits, tokens[static_cast<std::size_t>(target)]).nll);
                });
    if (seen) seen(end - 1);
  }
  return losses;
}

std::vector<std::vector<FarAnswers>> far_answers(const ablate::Generator& generator,
                                                 const ablate::TaskSetup& setup) {
  struct Answers {
    std::vector<double> distances, accuracies, right, losses;
  };
  const std::size_t variants = setup.plans.size();
  std::map<Index, std::vector<Answers>> by_length;
  const ablate::Task task{ablate::name_of(generator.kind), generator, 0};
  ablate::run_task(task, setup, 0, [&](const ablate::AskedBatch& batch) {
    for (const ablate::ItemResult& item : batch.items)
      for (const ablate::QueryResult& query : item.queries) {
        std::vector<Answers>& all = by_length[*query.factors.length];
        all.resize(variants);
        for (std::size_t v = 0; v < variants; ++v) {
          const ablate::Outcome& outcome = query.outcomes[v];
          all[v].distances.push_back(static_cast<double>(*query.factors.distance));
          all[v].accuracies.push_back(outcome.acc);
          all[v].right.push_back(outcome.correct);
          all[v].losses.push_back(*outcome.nll / static_cast<double>(outcome.resps[0].n_tokens));
        }
      }
  });
  std::vector<std::vector<FarAnswers>> answers;
  for (const Index length : generator.lengths) {
    std::vector<FarAnswers>& row = answers.emplace_back();
    for (const Answers& a : by_length.at(length))
      row.push_back({std::ssize(a.distances), mean_of(a.distances).value, mean_of(a.accuracies),
                     mean_of(a.right), mean_of(a.losses)});
  }
  return answers;
}

void LongContext::add_flags(CLI::App& verb) {
  verb.add_option("MODEL", models_, "Model files (default: the bundled model)");
  verb.add_option("--text", text_,
                  "A text whose loss is measured; - is standard input. Without it only the made-up questions "
                  "are asked")
      ->type_name("FILE");
  verb.add_option("--length", length_, "Read the first N tokens of the text (default 8192)")
      ->check(CLI::Range(Index{2}, Index{1} << 30))
      ->type_name("N");
  verb.add_option("--window", window_, "Compare with a window of N tokens (default 64; 0 = none)")
      ->check(CLI::Range(Index{0}, Index{1} << 30))
      ->type_name("N");
  verb.add_option("--sinks", sinks_, "First tokens that stay visible behind the window (default 4)")
      ->check(CLI::Range(Index{0}, Index{1} << 30))
      ->type_name("N");
  verb.add_option("--off", off_, "Take out mixers of these kinds, in turn (default: each kind; none)")
      ->delimiter(',')
      ->type_name("KIND");
  verb.add_option(
          "--distances", distances_,
          "Characters (tokens of models without a tokenizer) from a question back to its answer, about "
          "(default 128,256,512,1024; none without questions: 0)")
      ->delimiter(',')
      ->check(CLI::Range(Index{0}, Index{1} << 20))
      ->type_name("N");
  verb.add_option("--items", items_, "Questions of each kind and distance (default 16)")
      ->check(CLI::Range(Index{1}, Index{1} << 20))
      ->type_name("N");
  verb.add_option("--pairs", pairs_, "Keys that a recall question asks for (default 4)")
      ->check(CLI::Range(Index{1}, Index{1} << 16))
      ->type_name("N");
}

// A model, its variants, and what is found of it.
struct LongContext::Subject {
  std::shared_ptr<const Model> model;
  std::string name;  // as the card has it
  std::vector<Variant> variants;
  std::vector<std::string> notes;
  std::string text;
  Json json;
  std::vector<Figure> figures;
};

ablate::Generator LongContext::generator(const std::string& task, bool text, std::uint64_t seed) const {
  ablate::Generator generator;
  generator.kind = task == "needle"   ? ablate::Generator::Kind::needle
                   : task == "recall" ? ablate::Generator::Kind::recall
                                      : ablate::Generator::Kind::copying;
  generator.symbols = text ? ablate::Generator::Symbols::text : ablate::Generator::Symbols::ids;
  generator.lengths = distances_;
  if (task == "needle") generator.depths = {0};
  if (task == "recall") generator.pairs = {pairs_};
  generator.items = items_;
  generator.seed = seed;
  return generator;
}

void LongContext::read_text(const std::string& text, const Common& common, Subject& subject) const {
  std::vector<Token> tokens = tokenizer_of(*subject.model)->encode(text, Specials::with);
  if (std::ssize(tokens) > length_) tokens.resize(static_cast<std::size_t>(length_));
  if (tokens.size() < 2) fail("'", text_, "' has ", tokens.size(), " tokens; a loss needs two");
  const Compute compute = common.compute(Numerics::exact);
  const auto count = std::ssize(tokens);
  std::vector<Index> strides;
  if (window_ > 0) strides.push_back(window_);
  if (window_ > 1) strides.push_back((window_ + 1) / 2);
  const std::size_t runs = subject.variants.size() + strides.size();
  std::size_t done = 0;
  Progress progress(common, cat("reading ", subject.name));
  const auto seen = [&](Index t) {
    progress.update((static_cast<double>(done) + static_cast<double>(t) / static_cast<double>(count)) /
                    static_cast<double>(runs));
  };

  const std::vector<ContextBin> bins = context_bins(count);
  std::vector<std::vector<std::string>> rows(1, {"LOSS"});
  for (const ContextBin& bin : bins) rows[0].push_back(cat(bin.begin, "-", bin.end - 1));
  rows[0].insert(rows[0].end(), {"ALL", "PERPLEXITY"});
  plot::LineChart chart;
  chart.caption = {"", cat("Loss by context, ", subject.name),
                   "Mean over the tokens of a bin, 95 % intervals."};
  chart.axis = plot::LineChart::Axis::doubling;
  chart.x_label = "tokens before the one that is predicted";
  chart.unit = "nats per token";
  plot::LineChart extra = chart;  // what is taken out hides all else on the scale of the loss
  extra.caption.title = cat("Loss without a mixer, ", subject.name);
  extra.scale = plot::LineChart::Scale::tenfold;
  extra.unit = "nats per token above those of the whole model";
  chart.panels.emplace_back(plot::LineChart::Panel{subject.name, {}});
  extra.panels.emplace_back(plot::LineChart::Panel{cat(subject.name, " less"), {}});
  std::vector<double> whole;
  // edits: null where nothing is edited but the model begins anew
  const auto add = [&](const std::string& name, const EditList* edits, const std::vector<double>& losses) {
    if (whole.empty()) whole = losses;
    std::vector<double> above = losses;
    for (std::size_t t = 0; t < above.size(); ++t) above[t] -= whole[t];
    const bool less = name.starts_with(kWithout);
    std::vector<plot::LineChart::Series>& lines = (less ? extra : chart).panels[0].series;
    const int colour = plot::line_colour(lines.size());
    plot::LineChart::Series& series = lines.emplace_back(
        plot::LineChart::Series{less ? name.substr(std::size(kWithout) - 1) : name, colour, {}});
    Json json = {{"name", name}};
    if (edits) json["edits"] = to_json(*edits);
    rows.push_back({name});
    for (const ContextBin& bin : bins) {
      const Mean mean = mean_in(losses, bin), more = mean_in(above, bin);
      rows.back().push_back(fixed(mean.value, 4));
      json["bins"].push_back({{"begin", bin.begin},
                              {"end", bin.end},
                              {"nll", mean.value},
                              {"standard_error", mean.standard_error},
                              {"above_whole", more.value},
                              {"above_whole_standard_error", more.standard_error}});
      const double middle = std::sqrt(static_cast<double>(bin.begin) * static_cast<double>(bin.end));
      const Mean& drawn = less ? more : mean;
      series.points.push_back({middle, effect_of(drawn), plot::Certainty::clear, colour,
                               cat(name, ", ", bin.begin, " to ", bin.end - 1, ": ", fixed(drawn.value, 4))});
    }
    const Mean all = mean_of(losses);
    rows.back().insert(rows.back().end(), {fixed(all.value, 4), fixed(std::exp(all.value), 4)});
    json["nll"] = all.value;
    json["standard_error"] = all.standard_error;
    json["perplexity"] = std::exp(all.value);
    subject.json[edits ? "variants" : "restarts"].push_back(std::move(json));
    ++done;
  };
  for (const Variant& variant : subject.variants)
    add(variant.name, &variant.edits,
        losses_by_position(subject.model, variant.edits, tokens, compute, seen));
  for (const Index stride : strides)
    add(cat("restarted ", window_ - stride + 1, "-", window_), nullptr,
        restarted_losses(subject.model, tokens, window_, stride, compute, seen));
  progress.clear();
  subject.json["tokens"] = count;
  subject.text +=
      cat(table(rows, "l" + std::string(rows[0].size() - 1, 'r')),
          "Nats per token by the number of tokens before it; ", count, " tokens of '", text_, "'.\n");
  if (window_ > 0)
    subject.text += cat("window ", window_, ": attention sees that many keys and the first ", sinks_,
                        ", states go on. restarted: nothing goes on, every token is read from so many "
                        "tokens before it.\n");
  subject.figures.push_back(figure_of(std::move(chart),
                                      "What tokens ever further back are worth: a curve that goes on falling "
                                      "belongs to a model that still uses them."));
  if (!extra.panels[0].series.empty())
    subject.figures.push_back(
        figure_of(std::move(extra),
                  "What a kind of mixer is worth at each length of the context: the loss "
                  "without it above that of the whole model, token by token. Where it is not "
                  "above, points stand at the bottom."));
}

void LongContext::ask(const Common& common, Subject& subject) const {
  ablate::TaskSetup setup;
  setup.model = subject.model;
  if (has_tokenizer(*subject.model)) setup.tokenizer = tokenizer_of(*subject.model);
  for (const Variant& variant : subject.variants)
    setup.plans.push_back(variant.edits.empty() ? nullptr
                                                : std::make_shared<EditPlan>(*subject.model, variant.edits));
  setup.options.compute = common.compute(Numerics::exact);
  if (common.memory > 0) setup.options.memory = common.memory;

  plot::LineChart chart;
  chart.caption = {"", cat("Answers from far back, ", subject.name),
                   "Share of right tokens, 95 % intervals."};
  chart.axis = plot::LineChart::Axis::doubling;
  chart.x_label = "tokens back to the answer";
  chart.unit = "share of right tokens";
  Progress progress(common, cat("asking ", subject.name));
  double asked = 0;
  for (const char* task : kTasks) {
    const auto answers =
        far_answers(generator(task, setup.tokenizer != nullptr, common.seed.value_or(kSeed)), setup);
    std::vector<std::vector<std::string>> rows(1, {task});
    for (const auto& at : answers) rows[0].push_back(cat(std::llround(at[0].distance), " BACK"));
    plot::LineChart::Panel& panel = chart.panels.emplace_back(plot::LineChart::Panel{task, {}});
    for (std::size_t v = 0; v < subject.variants.size(); ++v) {
      const std::string& name = subject.variants[v].name;
      const int colour = plot::line_colour(v);
      plot::LineChart::Series& series = panel.series.emplace_back(plot::LineChart::Series{name, colour, {}});
      rows.push_back({name});
      for (std::size_t l = 0; l < answers.size(); ++l) {
        const FarAnswers& far = answers[l][v];
        rows.back().push_back(
            cat(fixed(far.accuracy.value, 3), " ", fixed(far.right.value, 3), " ", fixed(far.nll.value, 2)));
        series.points.push_back({far.distance, effect_of(far.accuracy), plot::Certainty::clear, colour,
                                 cat(name, ": ", fixed(far.accuracy.value, 3))});
        subject.json["tasks"].push_back({{"task", task},
                                         {"variant", name},
                                         {"length", distances_[l]},
                                         {"distance", far.distance},
                                         {"accuracy", far.accuracy.value},
                                         {"accuracy_standard_error", far.accuracy.standard_error},
                                         {"right", far.right.value},
                                         {"right_standard_error", far.right.standard_error},
                                         {"answers", far.answers},
                                         {"nll", far.nll.value},
                                         {"nll_standard_error", far.nll.standard_error}});
      }
    }
    subject.text += table(rows, "l" + std::string(rows[0].size() - 1, 'r'));
    progress.update(++asked / static_cast<double>(std::size(kTasks)));
  }
  progress.clear();
  subject.text +=
      cat("Of ", items_,
          " texts each, by the tokens back to the answer: share of right tokens, of answers right to "
          "the last token, nats per token.\n");
  subject.figures.push_back(
      figure_of(std::move(chart),
                "Needle: one pair of name and number at the beginning of a text. Recall: pairs of key "
                "and value, each asked for again. Copying: a random sequence, again."));
}

bool LongContext::asks() const { return distances_ != std::vector<Index>{0}; }

void LongContext::check() const {
  if (text_.empty() && !asks()) throw UsageError("without --text and with --distances 0 nothing is measured");
  if (asks() && holds(distances_, Index{0}))
    throw UsageError("--distances: 0 stands alone, for no questions");
  if (off_.size() > 1 && holds(off_, std::string(kNone)))
    throw UsageError("--off: none stands alone, for no mixer");
  if (const auto twice = repeated(distances_))
    throw UsageError(cat("--distances: ", *twice, " is given twice"));
  if (const auto twice = repeated(off_)) throw UsageError(cat("--off: ", *twice, " is given twice"));
}

Findings LongContext::run(const Common& common) const {
  check();
  const std::string text = text_.empty() ? "" : read_file(text_);
  Findings found;
  const std::vector<std::string> paths = models_.empty() ? std::vector{bundled_model()} : models_;
  for (const std::string& path : paths) {
    Subject subject;
    subject.model = open_model(path, common);
    subject.name = subject.model->card().name;
    subject.json = {{"model", path}, {"name", subject.name}, {"model_sha256", subject.model->digest()},
                    {"text", text_}, {"window", window_},    {"sinks", sinks_}};
    subject.variants = long_context_variants(*subject.model, window_, sinks_, off_, subject.notes);
    if (paths.size() > 1) subject.text = cat(found.text.empty() ? "" : "\n", path, "\n");
    if (!text_.empty()) read_text(text, common, subject);
    if (asks()) ask(common, subject);
    for (const std::string& note : subject.notes) subject.text += note + "\n";
    subject.json["notes"] = subject.notes;
    if (asks())
      subject.json.update({{"seed", common.seed.value_or(kSeed)}, {"items", items_}, {"pairs", pairs_}});
    found.text += subject.text;
    found.json["models"].push_back(std::move(subject.json));
    for (Figure& figure : subject.figures) found.figures.push_back(std::move(figure));
  }
  return found;
}

}  // namespace plait::probe
