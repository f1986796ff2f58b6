#include "tools/probe/single_location_regression.h"

#include <CLI/CLI.hpp>
#include <cmath>

#include "runtime/base/error.h"
#include "tools/plot/chart.h"
#include "tools/probe/head_task.h"
#include "tools/probe/location_data.h"
#include "tools/probe/location_layer.h"
#include "tools/within.h"

namespace plait::probe {
namespace {

// What the draws are for: each its own numbers.
enum Purpose : std::uint64_t { kFit = 1, kRisk, kLayer, kTrain, kPrune };

struct Sigma {
  const char* name;
  NormaliserOption option;
};
const Sigma kSigmas[] = {
    {"softmax", Softmax{}},
    {"linear", LocationWeights{LocationWeights::Function::linear, 0}},
    {"erf", LocationWeights{LocationWeights::Function::erf, 0}},
    {"softplus", LocationWeights{LocationWeights::Function::softplus, 0}},
};

struct Readout {
  const char* name;
  HeadReadout readout;
  Softmax normaliser;
};
constexpr Readout kReadouts[] = {
    {"joint softmax", HeadReadout::joint, {}},
    {"average of softmax", HeadReadout::average, {}},
    {"average of softmax_one", HeadReadout::average, {Softmax::Sink::zero}},
};

}  // namespace

void SingleLocationRegression::add_flags(CLI::App& verb) {
  verb.add_option("--law", law_, "Of the location: spiked (default) or max")
      ->check(CLI::IsMember({"spiked", "max"}));
  verb.add_option("-L,--length", task_.tokens, "Tokens (default 3)")
      ->check(CLI::Range(Index{2}, Index{4096}));
  verb.add_option("--nu", nu_, "Signal strengths (default 1,2,5,10,20)")
      ->delimiter(',')
      ->check(within(0, 1e4));
  verb.add_option("--noise", task_.noise, "Standard deviation of the label's noise (default 0)")
      ->check(within(0, 1e6));
  verb.add_option("--key-cosine", task_.key_cosine, "Of the estimator's key with the hidden one (default 1)")
      ->check(within(-1, 1));
  verb.add_option("--value-cosine", task_.value_cosine,
                  "Of the estimator's value with the hidden one (default 1)")
      ->check(within(-1, 1));
  verb.add_option("--draws", draws_, "Draws of a risk (default 200000)")
      ->check(CLI::Range(Index{2}, Index{1} << 32));
  verb.add_option("--fit-draws", fit_draws_, "Draws that factors are fitted on (default 20000)")
      ->check(CLI::Range(Index{2}, Index{1} << 24));
  verb.add_option("--width", width_,
                  "Also: the risk of the fast layer with these weights, on whole tokens of this width")
      ->check(CLI::Range(Index{4}, Index{1} << 16));
  verb.add_option("--layer-draws", layer_draws_, "With --width: draws of a risk (default 2000)")
      ->check(CLI::Range(Index{2}, Index{1} << 24));
  verb.add_option("--out", out_, "With --width: write those draws, --layer-draws for each nu")
      ->type_name("F.npy");
  verb.add_option("--spikes", spikes_, "Also: heads for a relevant token along one of this many directions")
      ->check(CLI::Range(Index{1}, Index{64}));
  verb.add_option("--heads", heads_, "With --spikes: heads (default 4)")
      ->check(CLI::Range(Index{1}, Index{64}));
  verb.add_option("--steps", steps_, "With --spikes: steps of gradient descent (default 600)")
      ->check(CLI::Range(Index{1}, Index{1} << 20));
}

Findings SingleLocationRegression::run(const Common& common) const {
  if (!out_.empty() && width_ == 0) throw UsageError("--out writes whole tokens and needs their --width");
  Findings found;
  if (!out_.empty()) write_data(common, found);
  add_risks(common, found);
  if (spikes_ > 0) add_heads(common, found);
  return found;
}

LocationTask SingleLocationRegression::chosen_task() const {
  LocationTask task = task_;
  task.law = law_ == "max" ? LocationTask::Law::max : LocationTask::Law::spiked;
  return task;
}

void SingleLocationRegression::write_data(const Common& common, Findings& found) const {
  const Sampling sampling = sampling_of(common, kLayer, layer_draws_);
  OutputFile file(out_);
  write_samples(chosen_task(), nu_, width_, sampling, file);
  file.commit();
  const auto directions = location_directions(2, width_, sampling.seed);
  found.json["data"] = {{"file", out_}, {"key", directions[0]}, {"value", directions[1]}};
}

void SingleLocationRegression::add_risks(const Common& common, Findings& found) const {
  LocationTask task = chosen_task();
  const bool closed = task.law == LocationTask::Law::spiked;
  found.json["law"] = law_;
  found.json["length"] = task.tokens;
  found.json["noise"] = task.noise;
  found.json["key_cosine"] = task.key_cosine;
  found.json["value_cosine"] = task.value_cosine;
  found.json["draws"] = draws_;
  std::vector<std::vector<std::string>> rows = {
      {"NU", "SIGMA", "RISK", "FACTOR", "SHIFT", "SCALE", "CLOSED FORM"}};
  if (width_ > 0) rows[0].push_back("LAYER");
  plot::LineChart chart;
  chart.caption = {"", "Risk of estimators", "Risk by signal strength, one line per weight function."};
  chart.x_label = "signal strength nu";
  chart.unit = "mean squared error";
  chart.scale = plot::LineChart::Scale::tenfold;
  chart.panels = {{cat(task.tokens, " tokens, law: ", law_), {{"posterior mean", 0, {}}}}};
  for (const Sigma& sigma : kSigmas) {
    auto& series = chart.panels[0].series;
    series.push_back({sigma.name, static_cast<int>(series.size()), {}});
  }
  Progress progress(common, "risks");
  const double all = static_cast<double>(nu_.size() * (std::size(kSigmas) + 1));
  double done = 0;
  const auto sampling = [&](Purpose purpose, Index draws) {
    Sampling s = sampling_of(common, purpose, draws);
    s.progress = [&](double fraction) { progress.update((done + fraction) / all); };
    return s;
  };
  for (const double nu : nu_) {
    task.nu = nu;
    Json entry = {{"nu", nu}};
    std::size_t line = 0;
    const auto add = [&](const char* name, const Estimate& risk) {
      chart.panels[0].series[line].points.push_back(
          {nu, effect_of(risk), plot::Certainty::clear, static_cast<int>(line), cat(name, ", nu ", nu)});
      ++line;
      ++done;
    };
    const Estimate bayes = bayes_risk(task, sampling(kRisk, draws_));
    add("posterior mean", bayes);
    entry["bayes"] = json_of(bayes);
    rows.push_back(
        {cat(nu), "posterior mean", with_error(bayes), fixed(task.posterior_factor(), 3), "", "1", ""});
    if (width_ > 0) rows.back().push_back("");
    for (const Sigma& sigma : kSigmas) {
      const LocationEstimator fitted = fit_estimator(task, sigma.option, sampling(kFit, fit_draws_));
      const Estimate risk = location_risk(task, fitted, sampling(kRisk, draws_));
      add(sigma.name, risk);
      Json& own = entry[sigma.name] = json_of(risk);
      own["factor"] = fitted.factor;
      own["shift"] = fitted.shift();
      own["scale"] = fitted.scale;
      const bool linear = closed && sigma.name == std::string("linear");
      if (linear) own["closed_form"] = linear_risk(task);
      rows.push_back({"", sigma.name, with_error(risk), fixed(fitted.factor, 3),
                      fitted.shift() == 0 ? "" : fixed(fitted.shift(), 2), fixed(fitted.scale, 4),
                      linear ? fixed(linear_risk(task), 4) : ""});
      if (width_ == 0) continue;
      const Estimate layer = layer_risk(task, fitted, width_, sampling_of(common, kLayer, layer_draws_));
      own["layer"] = json_of(layer);
      rows.back().push_back(with_error(layer));
    }
    found.json["risks"].push_back(entry);
  }
  found.text += cat(table(rows, "rlrrrrrr"), "Risks with standard errors, the same ", draws_,
                    " draws for all; factor, shift and scale were fitted on ", fit_draws_, " others.\n");
  found.figures.push_back(figure_of(std::move(chart),
                                    "Mean squared error with 95 % intervals. With the hidden directions "
                                    "softmax meets the posterior mean, and no "
                                    "other weight function does."));
}

void SingleLocationRegression::add_heads(const Common& common, Findings& found) const {
  const HeadTask task{task_.tokens, spikes_, nu_.back()};
  Progress progress(common, "heads");
  const Sampling sampling = sampling_of(common, kPrune, std::max<Index>(2, draws_ / 10));
  const Estimate bayes = head_loss(task, ideal_heads(task, HeadReadout::joint), sampling);
  found.text += cat("\n", heads_, " heads for ", spikes_, " spikes, nu ", task.nu,
                    ", trained from overlaps near zero. Bayes risk ", with_error(bayes), ".\n");
  Json json = {
      {"spikes", spikes_}, {"heads", heads_}, {"nu", task.nu}, {"steps", steps_}, {"bayes", json_of(bayes)}};
  plot::LineChart chart;
  chart.caption = {"", "Pruning heads", "Loss by the number of heads kept, one line per readout."};
  chart.x_label = "heads kept";
  chart.unit = "mean squared error of the weights";
  chart.scale = plot::LineChart::Scale::tenfold;
  chart.panels = {{cat(spikes_, " spikes, nu ", task.nu), {}}};
  double done = 0;
  for (const Readout& r : kReadouts) {
    const auto share = [&](double fraction) { progress.update((done + fraction) / std::size(kReadouts)); };
    const Heads heads = train_heads(task, r.readout, r.normaliser, heads_, steps_,
                                    sampling_of(common, kTrain, 0).seed, share);
    const Pruned pruned = prune_heads(task, heads, sampling);
    const Specialisation own = specialisation(task, heads, sampling);
    ++done;
    std::vector<std::vector<std::string>> rows = {{"HEAD"}};
    for (Index f = 0; f < spikes_; ++f) rows[0].push_back(cat("SPIKE ", f));
    for (Index h = 0; h < heads_; ++h) {
      rows.push_back({cat(h)});
      for (Index f = 0; f < spikes_; ++f)
        rows.back().push_back(fixed(heads.overlap[static_cast<std::size_t>(h * spikes_ + f)], 3));
    }
    std::vector<std::vector<std::string>> kept = {{"HEADS KEPT", "LOSS"}};
    plot::LineChart::Series series{r.name, static_cast<int>(chart.panels[0].series.size()), {}};
    Json losses = Json::array();
    for (std::size_t i = 0; i < pruned.loss.size(); ++i) {
      const auto count = heads_ - static_cast<Index>(i);
      kept.push_back({cat(count), with_error(pruned.loss[i])});
      losses.push_back({{"heads", count}, {"loss", json_of(pruned.loss[i])}});
      series.points.insert(series.points.begin(),
                           {static_cast<double>(count), effect_of(pruned.loss[i]), plot::Certainty::clear,
                            series.colour, cat(r.name, ", ", count, " heads")});
    }
    chart.panels[0].series.push_back(std::move(series));
    found.text += cat("\n", r.name, ": overlaps with the spikes, then losses as heads leave\n",
                      table(rows, "r" + std::string(static_cast<std::size_t>(spikes_), 'r')), "signal ",
                      with_error(own.signal), ", noise of heads of other spikes ", with_error(own.noise),
                      "\n", table(kept, "rr"));
    json["readouts"].push_back({{"name", r.name},
                                {"overlap", heads.overlap},
                                {"bias", heads.bias},
                                {"signal", json_of(own.signal)},
                                {"noise", json_of(own.noise)},
                                {"order", pruned.order},
                                {"pruning", losses}});
  }
  found.json["head_specialisation"] = std::move(json);
  found.figures.push_back(figure_of(
      std::move(chart), "Loss as heads leave, each time the one that costs least. Intervals of 95 %."));
}

}  // namespace plait::probe
