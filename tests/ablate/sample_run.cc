#include "tests/ablate/sample_run.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <set>

#include "runtime/base/error.h"
#include "tools/ablate/report/csv.h"
#include "tools/ablate/report/table.h"

namespace plait::testing {
namespace {

using ablate::report::csv_field;
using ablate::report::raw_number;
using Layers = std::vector<int>;

constexpr double kBaseline = 1.3905;             // nats per token
const double kCollapse = std::log(256.0) - 0.1;  // of a vocabulary of bytes
constexpr const char* kKinds[] = {"softmax_attention",    "gated_delta_net", "linear_attention",
                                  "polynomial_attention", "gated_delta_net", "ttt_linear"};

// Uniform in [0, 1), a function of its key (splitmix64).
double uniform(std::uint64_t key) {
  std::uint64_t z = key * 0x9E3779B97F4A7C15u + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

std::string joined(const Layers& layers) {
  std::string text;
  for (const int layer : layers) text = cat(text, text.empty() ? "" : " ", layer);
  return text;
}

struct MeasureRow {
  const char *dataset, *context, *metric;
  bool higher;
  double baseline, per_nat;  // delta of this metric per nat of loss
};
constexpr MeasureRow kMeasures[] = {{"tiny-shakespeare", "2048", "nll", false, kBaseline, 1},
                                    {"tiny-shakespeare", "2048", "kl_mean", false, 0, 0.9},
                                    {"tiny-shakespeare", "2048", "top1_agree", true, 1, -0.19},
                                    {"wikitext-2", "2048", "nll", false, 1.612, 0.8},
                                    {"recall", "512", "acc", true, 0.84, -0.24}};

class Writer {
 public:
  Writer(const std::filesystem::path& folder, const SampleRun& sample) : folder_(folder), sample_(sample) {
    std::filesystem::create_directories(folder);
  }

  void write() {
    add("baseline", "the whole model", "baseline", "", "", {}, 0);
    groups();
    singles();
    thirds_and_windows();
    cumulative();
    leave_in();
    pairs();
    doses();
    named();
    remembrance();
    shapley();
    for (const char* target : {"group-softmax_attention", "group-gated_delta_net"})
      for (const char* kind : {"count", "params", "depth"}) controls(target, kind);
    save("conditions.csv",
         "condition_id,label,spec_json,spec_sha256,design,component_type,site,layers,heads,phase,operator,"
         "alpha,"
         "n_layers_removed,params_removed,state_bytes_removed,kv_bytes_removed,match_of,match_kind,draw\n" +
             conditions_);
    save("results.csv",
         "run_id,condition_id,baseline_id,dataset,split,task_version,n_shot,context_len,position_bin,metric,"
         "filter,"
         "higher_is_better,value,baseline_value,delta,n_items,n_clusters,n_paired,stderr,ci_low,ci_high,ci_"
         "level,"
         "ci_method,p_raw,p_adj,adjust,family_id,n_comparisons,control_rank,control_n,control_gap,control_ci_"
         "low,"
         "control_ci_high,collapsed,mde80,status,seconds,forwards_equiv\n" +
             results_);
    save("controls.csv", "target_id,match_kind,draw,condition_id\n" + controls_);
    save("run.json", manifest().dump(2));
    save("checks.json", checks().dump(2));
  }

 private:
  const char* kind(int layer) const { return kKinds[layer % 6]; }
  int layers() const { return sample_.layers; }

  // What a block is worth: the first ones much, attention more than its neighbours, the last ones next to
  // nothing.
  double worth(int layer, const std::string& site) const {
    const double depth = static_cast<double>(layer) / layers();
    double w = 0.7 * std::exp(-layer / 1.2) + 0.09 * (1 - depth) +
               0.07 * uniform(static_cast<std::uint64_t>(layer) + 77) - 0.015;
    if (std::string(kind(layer)) == "softmax_attention") w += 0.22 * (1 - depth);
    if (site == "mlp") w = 0.5 * w + 0.04 * uniform(static_cast<std::uint64_t>(layer) + 999);
    if (site == "layer") w = 1.35 * w + 0.02;
    return w;
  }

  double loss_of(const Layers& set, const std::string& site, double alpha) const {
    double sum = 0;
    for (const int layer : set) sum += worth(layer, site);
    const double excess = 1 + 0.06 * std::max<double>(0, static_cast<double>(set.size()) - 1);
    const double delta = sample_.harm * sum * excess * std::pow(alpha, 1.6);
    return std::min(delta, 4.6);
  }

  void add(const std::string& id, const std::string& label, const std::string& design,
           const std::string& site, const std::string& op, const Layers& set, double alpha,
           const std::string& heads = "", const std::string& target = "", const std::string& match = "",
           int draw = -1) {
    std::set<std::string> kinds;
    for (const int layer : set) kinds.insert(kind(layer));
    std::string component = site == "mlp" || site == "layer" ? site : "";
    if (component.empty())
      for (const std::string& k : kinds) component = cat(component, component.empty() ? "" : "+", k);
    const bool removes = op == "zero" || op == "skip";
    const auto n = static_cast<long long>(removes ? set.size() : 0);
    long long attention = 0;
    for (const int layer : set) attention += std::string(kind(layer)) == "softmax_attention";
    const long long per_block = site == "layer" ? 220'000 : site == "mlp" ? 131'072 : 88'928;
    const Json spec = {{"site", site}, {"op", op}, {"layers", set}, {"alpha", alpha}, {"heads", heads}};
    conditions_ += cat(csv_field(id), ",", csv_field(label + sample_.label_end), ",", csv_field(spec.dump()),
                       ",sha-", id, ",", design, ",", component, ",", site, ",", joined(set), ",", heads,
                       ",always,", op, ",", raw_number(alpha), ",", n, ",", n * per_block, ",",
                       site == "mlp" || !removes ? 0 : (n - attention) * 65'536, ",",
                       site == "mlp" || !removes ? 0 : attention * 1'024, ",", target, ",", match, ",",
                       draw < 0 ? "" : std::to_string(draw), "\n");
    results(id, design, loss_of(set, site, alpha));
  }

  void results(const std::string& id, const std::string& design, double harm) {
    const std::uint64_t key = static_cast<std::uint64_t>(++serial_) * 131;
    const bool plain = design == "random" || design == "shapley" || design == "baseline";
    for (const MeasureRow& m : kMeasures) {
      if (plain && &m != kMeasures) break;
      const double noise = design == "baseline"
                               ? 0
                               : 0.006 * (uniform(key + static_cast<std::uint64_t>(&m - kMeasures)) - 0.5);
      result(id, m, m.context, harm * m.per_nat + noise * std::abs(m.per_nat), design);
    }
    const char* bins[] = {"position 0-63",        "position 64-255",        "position 256-",
                          "pair last seen: 1-15", "pair last seen: 16-127", "pair last seen: 128-",
                          "pair last seen: never"};
    if (design == "group")
      for (std::size_t b = 0; b < std::size(bins); ++b)
        result(id, kMeasures[0], "2048", harm * (0.8 + 0.07 * static_cast<double>(b)), design, bins[b]);
    if (design == "group")
      for (const char* context : {"128", "512", "8192"})
        result(id, kMeasures[0], context, harm * (0.72 + 0.06 * std::log2(std::stod(context) / 128)), design);
  }

  void result(const std::string& id, const MeasureRow& m, const char* context, double delta,
              const std::string& design, const std::string& bin = "") {
    const double base = std::string(context) == m.context
                            ? m.baseline
                            : m.baseline + 0.3 - 0.03 * std::log2(std::stod(context));
    const bool collapsed = std::string(m.metric) == "nll" && base + delta >= kCollapse;
    const double half = design == "baseline" ? 0 : std::abs(m.per_nat) * 0.004 + 0.06 * std::abs(delta);
    const double z = half > 0 ? std::abs(delta) / (half / 1.96) : 0, p = std::erfc(z / std::sqrt(2.0));
    const int comparisons = design == "single" ? 72 : design == "group" ? 9 : 40;
    const std::string family = design == "single" ? "sweep" : design;
    results_ +=
        cat(csv_field(sample_.id), ",", csv_field(id), ",baseline,", m.dataset, ",test,1,0,", context, ",",
            bin, ",", m.metric, ",none,", m.higher ? "true" : "false", ",", raw_number(base + delta), ",",
            raw_number(base), ",", raw_number(delta), ",111540,120,111540,", raw_number(half / 1.96), ",",
            raw_number(delta - half), ",", raw_number(delta + half), ",0.95,cluster_bootstrap,",
            raw_number(p), ",", raw_number(std::min(1.0, 3 * p)), ",", design == "group" ? "holm" : "bh", ",",
            family, ",", comparisons, ",,,,,,", collapsed ? "true" : "false", ",0.0104,",
            collapsed ? "collapsed" : "ok", ",", raw_number(2.5 - 0.0001 * (serial_ % 97)), ",1\n");
  }

  Layers of_kind(const std::string& wanted) const {
    Layers set;
    for (int l = 0; l < layers(); ++l)
      if (kind(l) == wanted) set.push_back(l);
    return set;
  }

  Layers range(int from, int to) const {
    Layers set(static_cast<std::size_t>(to - from));
    std::iota(set.begin(), set.end(), from);
    return set;
  }

  void groups() {
    const std::set<std::string> kinds(std::begin(kKinds), std::end(kKinds));
    for (const std::string& k : kinds)
      add("group-" + k, "all " + k + " mixers", "group", "mixer", "zero", of_kind(k), 1);
    add("group-mlp", "all MLPs", "group", "mlp", "zero", range(0, layers()), 1);
  }

  void singles() {
    for (const auto& [site, op] :
         {std::pair("mixer", "zero"), std::pair("mlp", "zero"), std::pair("layer", "skip")})
      for (int l = 0; l < layers(); ++l)
        add(cat("single-", site, "-", l), cat(site, ".", op, " block ", l), "single", site, op, {l}, 1);
    for (int i = 0; i < sample_.more_singles; ++i)
      add(cat("head-", i), cat("head ", i % 8, " of block ", i / 8 % layers(), ", take ", i), "single",
          "head", "zero", {i / 8 % layers()}, 0.4, std::to_string(i % 8));
  }

  void thirds_and_windows() {
    const char* names[] = {"early", "middle", "late"};
    for (int t = 0; t < 3; ++t)
      add(cat("third-", t), cat(names[t], " third, mixers"), "third", "mixer", "zero",
          range(t * layers() / 3, (t + 1) * layers() / 3), 1);
    for (int w = 2; w <= 4; ++w)
      for (int l = 0; l + w <= layers(); ++l)
        add(cat("window-", w, "-", l), cat("blocks ", l, " to ", l + w - 1, ", mixers"), "window", "mixer",
            "zero", range(l, l + w), 1);
  }

  void cumulative() {
    for (int n = 1; n <= layers(); ++n) {
      add(cat("first-", n), cat("first ", n, " mixers"), "cumulative", "mixer", "zero", range(0, n), 1);
      if (n < layers())
        add(cat("last-", n), cat("last ", n, " mixers"), "cumulative", "mixer", "zero",
            range(layers() - n, layers()), 1);
    }
  }

  void leave_in() {
    const std::set<std::string> kinds(std::begin(kKinds), std::end(kKinds));
    for (const std::string& k : kinds) {
      Layers others;
      for (int l = 0; l < layers(); ++l)
        if (kind(l) != k) others.push_back(l);
      add("only-" + k, "only " + k, "leave_in", "mixer", "zero", others, 1);
    }
  }

  void pairs() {
    for (int a = 0; a < 5; ++a)
      for (int b = a + 1; b < 5; ++b)
        add(cat("pair-", a, "-", b), cat("mixers ", a, " and ", b), "pair", "mixer", "zero", {a, b}, 1);
  }

  void doses() {
    for (const int l : {0, 6})
      for (int step = 1; step <= 8; ++step)
        add(cat("dose-", l, "-", step), cat("mixer of block ", l, " at ", 0.125 * step), "dose", "mixer",
            "zero", {l}, 0.125 * step);
  }

  void named() {
    add("noerase", "delta rule without its erase term", "spec", "erase", "off", of_kind("gated_delta_net"),
        0.5);
    add("noforget", "decay fixed at one", "spec", "decay", "one", of_kind("gated_delta_net"), 0.4);
    add("reset", "state reset at token 1,024", "spec", "state", "reset", of_kind("gated_delta_net"), 0.15);
  }

  // What is left of a past that was cut off: less the more history there is since, on both texts.
  void remembrance() {
    constexpr std::pair<const char*, double> bins[] = {
        {"history 1-15", 4}, {"history 16-63", 32}, {"history 64-255", 128}, {"history 256-1023", 512}};
    for (const int cut : {64, 256, 1024}) {
      const std::string id = cat("remembrance.", cut);
      add(id, cat("nothing remembered from before token ", cut), "spec", "history", "cut", {}, 1);
      for (const MeasureRow& m : {MeasureRow{"tiny-shakespeare", "2048", "effrem", false, 0, 1},
                                  MeasureRow{"wikitext-2", "2048", "effrem", false, 0, 1.8}})
        for (const auto& [bin, tokens] : bins)
          result(id, m, m.context, m.per_nat * std::log2(cut) / 10 * std::pow(tokens, -0.7), "spec", bin);
    }
  }

  void shapley() {
    for (int l = 0; l < layers(); ++l) {
      const double share = sample_.harm * worth(l, "mixer") * 1.4, half = 0.01 + 0.05 * share;
      add(cat("shapley-", l), cat("mixer of block ", l), "shapley", "mixer", "zero", {l}, 1);
      results_ +=
          cat(csv_field(sample_.id), ",shapley-", l,
              ",baseline,tiny-shakespeare,test,1,0,2048,,shapley,none,false,", raw_number(share), ",0,",
              raw_number(share), ",111540,100,,", raw_number(half / 1.96), ",", raw_number(share - half), ",",
              raw_number(share + half), ",0.95,permutation_t,,,none,shapley,24,,,,,,false,,ok,,\n");
    }
  }

  void controls(const std::string& target, const std::string& match) {
    const Layers wanted = of_kind(target.substr(6));
    for (int d = 0; d < sample_.draws; ++d) {
      Layers order = range(0, layers());
      std::uint64_t key =
          static_cast<std::uint64_t>(d) * 1009 + match.size() * 7919 + target.size() * 104'729;
      for (std::size_t i = order.size() - 1; i > 0; --i)
        std::swap(order[i],
                  order[static_cast<std::size_t>(uniform(++key * 2654435761u) * static_cast<double>(i + 1))]);
      order.resize(wanted.size());
      std::sort(order.begin(), order.end());
      const std::string id = cat("random-", target, "-", match, "-", d);
      add(id, cat("random set ", d), "random", "mixer", "zero", order, 1, "", target, match, d);
      controls_ += cat(target, ",", match, ",", d, ",", id, "\n");
    }
    if (match != "count") return;  // the engine's own rank, for one of the ways of matching
    results_ += cat(csv_field(sample_.id), ",", target,
                    ",baseline,tiny-shakespeare,test,1,0,2048,,nll,controls:count,false,2,1,1,",
                    "111540,120,111540,,,,,,0.02,0.04,bh,controls:count,2,3,", sample_.draws,
                    ",0.51,0.42,0.6,false,,ok,,\n");
  }

  Json manifest() const {
    std::vector<std::string> types;
    for (int l = 0; l < layers(); ++l) types.push_back(kind(l));
    return {{"schema_version", 1},
            {"run_id", sample_.id},
            {"started", "2026-11-25T10:00:00Z"},
            {"finished", "2026-11-25T10:14:31Z"},
            {"engine", {{"version", "0.1.0"}, {"git", "8c50c13"}, {"simd", "avx512"}, {"threads", 2}}},
            {"device", {{"name", "2 cores of an AMD Zen 5"}, {"mem", 25'769'803'776}}},
            {"model",
             {{"name", "paper-hybrid"},
              {"family", "plait"},
              {"layer_types", types},
              {"params", 5'300'000},
              {"hdf5_sha256", "51c0ffee"},
              {"dtype", "f32"}}},
            {"tokenizer_sha256", "none: bytes"},
            {"data",
             {{{"name", "tiny-shakespeare"},
               {"split", "test"},
               {"n_docs", 120},
               {"n_tokens", 111'540},
               {"sha256", sample_.data_sha256}},
              {{"name", "wikitext-2"},
               {"split", "test"},
               {"n_docs", 62},
               {"n_tokens", 245'569},
               {"sha256", "d3ad"}}}},
            {"arithmetic",
             {{"mode", "exact"},
              {"key_block", 64},
              {"key_span", 1024},
              {"version", 1},
              {"digest", sample_.arithmetic}}},
            {"numerics", {{"logits", "f32"}, {"loss", "f64"}}},
            {"seeds", {{"controls", 1}, {"bootstrap", 2}}},
            {"plan", {{"confirmatory", {"group"}}, {"stop_rule", nullptr}}},
            {"cmdline", "plait ablate paper-hybrid.h5 --study full --text tiny-shakespeare.txt"},
            {"cost", {{"forwards_equiv", 211.4}, {"tokens", 111'540}, {"seconds", 871}}}};
  }

  static Json checks() {
    Json list = Json::array();
    for (int i = 1; i <= 10; ++i)
      list.push_back({{"id", cat("C", i)},
                      {"name", cat("what check ", i, " is about")},
                      {"passed", i == 9 ? Json() : Json(true)},
                      {"detail", i == 9 ? "no plain delta rule layer" : "equal on 1,100 tokens"}});
    return {{"passed", true}, {"checks", list}};
  }

  void save(const char* name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }

  std::filesystem::path folder_;
  SampleRun sample_;
  int serial_ = 0;
  std::string conditions_, results_, controls_;
};

}  // namespace

void write_sample_run(const std::filesystem::path& folder, const SampleRun& sample) {
  Writer(folder, sample).write();
}

}  // namespace plait::testing
