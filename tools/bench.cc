// plait bench: prefill and decode speed, memory, and shares of the machine's peaks measured in the same run.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/run/stream.h"
#include "tools/peaks.h"
#include "tools/program.h"
#include "tools/verbs.h"

namespace plait {
namespace {

struct Bench {
  Common common;
  std::string model;
  std::vector<Index> prompts = {512};
  Index generated = 32, batch = 1, repeat = 3;

  int run() const;
};

struct Result {
  std::string test;              // "pp512", "tg32"
  double tokens = 0;             // per repetition, all streams
  double tokens_per_second = 0;  // of the median repetition
  std::vector<double> seconds;
  double share = 0;  // of the peak product rate (pp) or read bandwidth (tg)
};

// What one token costs: the yardsticks of the shares.
struct Cost {
  double flops = 0;         // of a prompt token's matrix products; the head works only for the last one
  double weight_bytes = 0;  // read for each decoded token (of an embedding only a row is)
  bool narrow = false;      // most weights are bf16
};

Cost cost_of(const Model& model) {
  Cost cost;
  double narrow = 0;
  for (int n = 0; n < model.node_count(); ++n) {
    if (model.kind(n).group == "embedding") continue;
    for (const auto& [name, tensor] : model.parameters(n).all()) {
      cost.weight_bytes += static_cast<double>(tensor.bytes);
      if (tensor.dtype == DType::bf16) narrow += static_cast<double>(tensor.bytes);
    }
    if (n == model.graph().output()) continue;
    const auto config = model.config(n);
    for (const TensorSpec& spec : model.kind(n).tensors(*config))
      if (spec.matrix) cost.flops += 2 * static_cast<double>(element_count(spec.shape));
  }
  cost.narrow = narrow > cost.weight_bytes / 2;
  return cost;
}

// Any tokens do: speed does not depend on them.
Token token_at(Index i, Index vocab) { return static_cast<Token>((i * 7919 + 13) % vocab); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Runner {
 public:
  Runner(const Bench& args, std::shared_ptr<const Model> model, const Compute& compute)
      : args_(args), model_(std::move(model)), progress_(args.common, "measuring") {
    options_.compute = compute;
  }

  Result prefill(Index length) {
    const std::vector<Token> prompt = tokens(length);
    return measure(cat("pp", length), static_cast<double>(length * args_.batch),
                   [&](std::vector<Stream>& streams) {
                     Stopwatch watch;
                     step(streams, prompt);
                     return watch.seconds();
                   });
  }

  Result decode(Index count) {
    const std::vector<Token> all = tokens(count + 1);
    return measure(cat("tg", count), static_cast<double>(count * args_.batch),
                   [&](std::vector<Stream>& streams) {
                     step(streams, std::span(all).first(1));
                     Stopwatch watch;
                     for (Index i = 1; i <= count; ++i)
                       step(streams, std::span(all).subspan(static_cast<std::size_t>(i), 1));
                     return watch.seconds();
                   });
  }

  std::size_t state_bytes() const { return state_bytes_; }

 private:
  std::vector<Token> tokens(Index count) const {
    std::vector<Token> all;
    for (Index i = 0; i < count; ++i) all.push_back(token_at(i, model_->card().vocab));
    return all;
  }

  // The same tokens to every stream of the batch, in one walk.
  void step(std::vector<Stream>& streams, std::span<const Token> tokens) const {
    std::vector<Item> items;
    for (Stream& stream : streams) items.push_back({&stream.sequence(), tokens, Want::last, Origin::given});
    run_batch(*model_, items, {options_.compute, 512, {}}, {});
  }

  // One repetition to warm up, then the ones that count, each on fresh streams.
  template <class Work>
  Result measure(const std::string& test, double tokens, Work work) {
    Result result{test, tokens, 0, {}, 0};
    for (Index r = 0; r <= args_.repeat; ++r) {
      std::vector<Stream> streams(static_cast<std::size_t>(args_.batch), Stream(model_, options_));
      const double seconds = work(streams);
      if (r > 0) result.seconds.push_back(seconds);
      state_bytes_ = std::max(state_bytes_, streams[0].state_bytes());
      check_budget(args_.common, *model_, streams[0].state_bytes() * streams.size());
      progress_.update(static_cast<double>(r) / static_cast<double>(args_.repeat + 1), test);
    }
    result.tokens_per_second = tokens / median(result.seconds);
    return result;
  }

  const Bench& args_;
  std::shared_ptr<const Model> model_;
  StreamOptions options_;
  Progress progress_;
  std::size_t state_bytes_ = 0;
};

// Seconds from nothing to the logits of one token.
double open_to_first_token(const std::string& path, const Common& common, const Compute& compute) {
  Stopwatch watch;
  StreamOptions options;
  options.compute = compute;
  Stream(open_model(path, common), options).feed({0});
  return watch.seconds();
}

void add_shares(std::vector<Result>& results, const Cost& cost, const Peaks& peaks, Index batch,
                std::size_t state) {
  const double gflops = cost.narrow ? peaks.gflops_bf16 : peaks.gflops_f32;
  for (Result& result : results) {
    if (result.test.starts_with("pp")) {
      result.share = result.tokens_per_second * cost.flops / 1e9 / gflops;
    } else {
      const double steps = result.tokens_per_second / static_cast<double>(batch);
      result.share = steps * (cost.weight_bytes + static_cast<double>(batch) * static_cast<double>(state)) /
                     1e9 / peaks.read_gbps;
    }
  }
}

std::string describe(const std::vector<Result>& results) {
  std::vector<std::vector<std::string>> rows = {{"TEST", "TOKENS/S", "SHARE", "OF"}};
  for (const Result& r : results)
    rows.push_back({r.test, fixed(r.tokens_per_second, 1), cat(fixed(100 * r.share, 1), " %"),
                    r.test.starts_with("pp") ? "the packed product's peak" : "read bandwidth"});
  return table(rows, "lrrl");
}

int Bench::run() const {
  const Compute compute = common.compute(Numerics::fast);
  const double open_seconds = open_to_first_token(model, common, compute);
  const auto opened = open_model(model, common);
  const Cost cost = cost_of(*opened);
  Runner runner(*this, opened, compute);
  std::vector<Result> results;
  for (const Index length : prompts) results.push_back(runner.prefill(length));
  if (generated > 0) results.push_back(runner.decode(generated));
  const std::size_t rss = peak_rss_bytes();  // before the yardsticks take their memory
  const Peaks peaks = measure_peaks(compute);
  add_shares(results, cost, peaks, batch, runner.state_bytes());
  const double gflops = cost.narrow ? peaks.gflops_bf16 : peaks.gflops_f32;

  if (!common.json_only()) {
    print(cat(opened->card().name, ", ", name_of(compute.numerics), ", ", name_of(compute.isa), ", ",
              compute.threads, " threads, batch ", batch, "\n", describe(results)));
    print(table(
        {{"peaks", cat(fixed(gflops, 0), " GFLOP/s (", cost.narrow ? "bf16" : "f32", " weights), ",
                       fixed(peaks.read_gbps, 1), " GB/s read")},
         {"open to first token", cat(fixed(open_seconds, 3), " s")},
         {"memory", cat(human_bytes(static_cast<double>(rss)), " resident, ",
                        human_bytes(static_cast<double>(runner.state_bytes())), " of state per stream")}},
        "ll"));
    if (cost.weight_bytes < 64e6)
      print("The weights are small enough to stay in caches, so decode may exceed read bandwidth.\n");
  }
  Json json = {{"model", opened->card().name},
               {"model_sha256", opened->digest()},
               {"isa", name_of(compute.isa)},
               {"threads", compute.threads},
               {"numerics", name_of(compute.numerics)},
               {"batch", batch},
               {"results", Json::array()},
               {"open_seconds", open_seconds},
               {"peak",
                {{"gflops", gflops},
                 {"gflops_f32", peaks.gflops_f32},
                 {"gflops_bf16", peaks.gflops_bf16},
                 {"read_gbps", peaks.read_gbps}}},
               {"memory", {{"rss_bytes", rss}, {"state_bytes", runner.state_bytes()}}}};
  for (const Result& r : results)
    json["results"].push_back({{"test", r.test},
                               {"tokens_per_second", r.tokens_per_second},
                               {"seconds", r.seconds},
                               {"share", r.share}});
  flush_output();
  write_json(common, json);
  return kDone;
}

}  // namespace

void add_bench(CLI::App& program, Action& chosen) {
  auto args = std::make_shared<Bench>();
  CLI::App* verb = program.add_subcommand("bench", "Measure speed, memory and shares of the machine's peaks");
  verb->add_option("MODEL", args->model, "A model file")->required();
  verb->add_option("-p", args->prompts, "Prompt lengths, e.g. 512,2048 (default: 512)")
      ->delimiter(',')
      ->check(CLI::Range(Index{1}, Index{1} << 30))
      ->type_name("N,..");
  verb->add_option("-n", args->generated, "Tokens decoded one by one; 0 = none (default: 32)")
      ->check(CLI::Range(Index{0}, Index{1} << 30))
      ->type_name("N");
  verb->add_option("--batch", args->batch, "Streams that run together (default: 1)")
      ->check(CLI::Range(Index{1}, Index{1} << 16));
  verb->add_option("--repeat", args->repeat, "Repetitions; the median counts (default: 3)")
      ->check(CLI::Range(Index{1}, Index{1000}));
  add_common(*verb, args->common, "fast");
  verb->callback([args, &chosen] { chosen = [args] { return args->run(); }; });
}

}  // namespace plait
