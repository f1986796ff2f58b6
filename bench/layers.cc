// One layer at a time: microseconds per token in prefill and decode, the share of that time its own matrix
// products need when run alone, and state bytes. A kind whose bits depend on the split prints no figure.
// --edits: time with each edit of the layer's sites over every token, as a multiple of the time without.
// --options: prefill under each option of softmax_attention and of the other kinds of attention, as a
// multiple of plain softmax of the same sizes (bench/attention.json).
// --all: that, and prefill of the kinds of constant state as a multiple of their arithmetic: of the time
// their products and as many operations as their recurrence has would take at the rate of the products alone.
// Sizes and operations: bench/layers.json. bench_layers --help lists the flags.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>

#include "bench/program.h"
#include "runtime/base/error.h"
#include "runtime/base/panel.h"
#include "runtime/base/parallel.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/linear.h"
#include "runtime/run/edit_plan.h"
#include "runtime/run/registry.h"
#include "tests/testing.h"
#include "tests/typical_edit.h"

namespace plait {
namespace {

struct Settings {
  BenchFlags flags;
  std::vector<std::string> kinds;  // none: all
  Index tokens = 512;
  bool edits = false, options = false, all = false;
  std::string json;  // file that --options and --all write, too
};

// One layer with random f32 weights and its own input rows.
class Subject {
 public:
  Subject(const Kind& kind, Json settings, Index width, Index tokens, int threads)
      : Subject(kind, settings, width, tokens, threads, kind.graphs != Kind::Graphs::encoder) {}
  Subject(const Kind& kind, Json settings, Index width, Index tokens, int threads, bool causal)
      : rows_(tokens), width_(width), context_{{Numerics::exact, Isa::automatic, threads}} {
    const auto config = [&] {
      return std::make_unique<Config>(kind.key, settings,
                                      Surroundings{width, 1, 256, width, Grids{}, causal});
    };
    testing::Numbers numbers(1);
    std::map<std::string, Tensor> tensors;
    for (const TensorSpec& spec : kind.tensors(*config())) {
      const double scale = 1 / std::sqrt(static_cast<double>(spec.shape.back()));
      std::vector<float> values = numbers.normals(element_count(spec.shape), scale);
      if (spec.init == Init::ones) std::fill(values.begin(), values.end(), 1.0f);
      const Tensor rows = make_tensor(spec.shape, values);
      tensors[spec.name] = spec.matrix ? pack(rows, DType::f32) : rows;
    }
    parameters_ = Parameters(tensors);
    layer_ = kind.make(*config(), parameters_);
    input_ = numbers.normals(tokens * width);
    output_.resize(static_cast<std::size_t>(tokens * layer_->signature().output));
  }

  // Runs all rows in pieces of `step`, under an edit or none; returns seconds by the clock or of the
  // processors.
  double run(Index step, const Edit* edit = nullptr) {
    State state(layer_->fields());
    Edits edits;
    if (edit) {
      edits.add(edit);
      state.remember(memory_of(*edit));
    }
    const double time = seconds([&] {
      for (Index p = 0; p < rows_; p += step)
        piece(state, p, std::min(step, rows_ - p), edit ? &edits : nullptr);
    });
    state_bytes_ = state.bytes();
    return time;
  }

  bool bits_depend_on_the_split() {
    run(rows_);
    const std::vector<float> whole = output_;
    for (Index step : {1, 7}) {
      run(step);
      if (!testing::same_bits(output_, whole)) return true;
    }
    return false;
  }

  // Floating-point operations of its products for one row.
  double product_operations() const {
    double total = 0;
    for (const auto& [name, tensor] : parameters_.all())
      if (tensor.layout == Layout::panels) total += 2 * static_cast<double>(element_count(tensor.shape));
    return total;
  }

  // Seconds its products take alone, at `rows` rows per call.
  double products(Index rows) {
    double total = 0;
    std::vector<float> x, y;
    for (const auto& [name, tensor] : parameters_.all()) {
      if (tensor.layout != Layout::panels) continue;
      const Linear linear(tensor);
      x.assign(static_cast<std::size_t>(rows * linear.in()), 0.5f);
      y.resize(static_cast<std::size_t>(rows * linear.out()));
      total += seconds([&] {
        linear.run({x.data(), rows, linear.in()}, {y.data(), rows, linear.out()}, context_.compute);
      });
    }
    return total;
  }
  std::size_t state_bytes() const { return state_bytes_; }
  const Layer& layer() const { return *layer_; }
  Index rows() const { return rows_; }

 private:
  // Rows [p, p + count).
  void piece(State& state, Index p, Index count, const Edits* edits) {
    const View<const float> x = View<const float>(input_.data(), rows_, width_).slice_rows(p, count);
    const Index out = layer_->signature().output;
    const View<float> y = View<float>(output_.data(), rows_, out).slice_rows(p, count);
    const Segment segment{layer_->fields().empty() ? nullptr : &state, p, 0, count, edits};
    layer_->run({{&x, 1}, y, {}}, {&segment, 1}, context_);
    state.advance(p + count);
  }

  Index rows_, width_;
  Context context_;
  Parameters parameters_;
  std::unique_ptr<Layer> layer_;
  std::vector<float> input_, output_;
  std::size_t state_bytes_ = 0;
};

// A kind that takes sequences whole: there is no split and no decoding.
void report_encoder(const Settings& s, const Kind& kind, const Json& settings, Index width) {
  Subject subject(kind, settings, width, s.tokens, s.flags.threads);
  double time = 1e30;
  for (Index r = 0; r < s.flags.repeat; ++r) time = std::min(time, subject.run(s.tokens));
  std::printf("%-24s %10.2f %10s %11s %12s\n", kind.key.c_str(), time / static_cast<double>(s.tokens) * 1e6,
              "-", "-", "-");
}

// An entry of layers.json is named like its kind, or names it: an option has an entry of its own.
const Kind& kind_of(const std::string& key, const Json& sizes) {
  return Registry::builtin().find(sizes.value("kind", key));
}

void report(const Settings& s, const std::string& key, const Json& sizes) {
  const Kind& kind = kind_of(key, sizes);
  const Json settings = sizes["settings"];
  const Index width = sizes["width"].get<Index>();
  if (kind.graphs == Kind::Graphs::encoder) return report_encoder(s, kind, settings, width);
  if (Subject(kind, settings, width, 70, s.flags.threads).bits_depend_on_the_split())
    fail(key, ": bits depend on the split; no figure is printed for it");
  Subject prefill_subject(kind, settings, width, s.tokens, s.flags.threads);
  Subject decode_subject(kind, settings, width, std::min<Index>(s.tokens, 64), s.flags.threads);
  double prefill = 1e30, decode = 1e30, products = 1e30;
  for (Index r = 0; r < s.flags.repeat; ++r) {
    prefill = std::min(prefill, prefill_subject.run(s.tokens));
    decode = std::min(decode, decode_subject.run(1));
    products = std::min(products, prefill_subject.products(s.tokens));
  }
  const double tokens = static_cast<double>(s.tokens);
  std::printf("%-24s %10.2f %10.2f %9.1f %% %12zu\n", key.c_str(), prefill / tokens * 1e6,
              decode / static_cast<double>(std::min<Index>(s.tokens, 64)) * 1e6, 100 * products / prefill,
              prefill_subject.state_bytes());
}

// What other programs on the machine take does not count.
template <class F>
double processor_seconds(F&& f) {
  const std::clock_t start = std::clock();
  f();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

// Edits that may take more than half again the time of the plain layer: what they ask for is work of its own.
bool is_exempt(const Edit& edit) {
  return edit.every == Every::token || (edit.op == Operator::rank && edit.every == Every::chunk);
}

void report_edits(const Settings& s, const std::string& key, const Json& sizes) {
  const auto subject_of = [&](Index tokens) {
    return Subject(kind_of(key, sizes), sizes["settings"], sizes["width"].get<Index>(), tokens,
                   s.flags.threads);
  };
  Subject whole = subject_of(s.tokens), one_fold = subject_of(40), few = subject_of(8);
  for (const Edit& edit : testing::typical_edits(key, whole.layer(), 0, s.tokens)) {
    const bool exempt = is_exempt(edit);
    Subject& subject = !exempt ? whole : edit.every == Every::chunk ? one_fold : few;
    const auto tokens = static_cast<double>(subject.rows());
    double plain = 1e30, edited = 1e30;
    // In turns, so that a busy machine slows both.
    for (Index r = 0; r < (exempt ? 1 : s.flags.repeat); ++r) {
      plain = std::min(plain, processor_seconds([&] { subject.run(subject.rows()); }));
      edited = std::min(edited, processor_seconds([&] { subject.run(subject.rows(), &edit); }));
    }
    std::printf("%-24s %-32s %10.2f %10.2f %8.2f%s\n", key.c_str(), testing::describe(edit).c_str(),
                plain / tokens * 1e6, edited / tokens * 1e6, edited / plain,
                exempt                 ? " (exempt)"
                : edited > 1.5 * plain ? " SLOW"
                                       : "");
    std::fflush(stdout);
  }
}

Json read_sizes(const char* name) {
  std::ifstream file(std::string(PLAIT_SOURCE_DIR) + "/bench/" + name);
  return Json::parse(file);
}

// A cost as a multiple of a yardstick of the same run.
struct Cost {
  std::string name;
  double yardstick = 0, seconds = 0;  // of the processor, for all tokens
  std::string reason;                 // why it may exceed its target

  static constexpr double kTarget = 1.5, kLimit = 3;
  double ratio() const { return seconds / yardstick; }
  bool exceeds() const { return ratio() > kTarget; }
};

void print_costs_header(const char* name, const char* yardstick) {
  std::printf("%-26s %14s %10s %8s %8s\n", name, yardstick, "us", "ratio", "target");
}

void print(const Cost& cost, Index tokens) {
  const double us = 1e6 / static_cast<double>(tokens);
  std::printf("%-26s %14.2f %10.2f %8.2f %8.1f%s%s%s\n", cost.name.c_str(), cost.yardstick * us,
              cost.seconds * us, cost.ratio(), Cost::kTarget, cost.exceeds() ? " SLOW" : "",
              cost.reason.empty() ? "" : "  ", cost.reason.c_str());
  std::fflush(stdout);
}

// What a mechanism takes over what plain softmax attention takes, in turns, so that a busy machine slows
// both.
Cost cost_over(Subject& plain, Subject& subject, const Settings& s) {
  Cost cost{"", 1e30, 1e30, ""};
  for (Index r = 0; r < s.flags.repeat; ++r) {
    cost.yardstick = std::min(cost.yardstick, processor_seconds([&] { plain.run(s.tokens); }));
    cost.seconds = std::min(cost.seconds, processor_seconds([&] { subject.run(s.tokens); }));
  }
  return cost;
}

// The options of softmax_attention and the other kinds of attention over plain softmax attention.
std::vector<Cost> attention_costs(const Settings& s) {
  const Json sizes = read_sizes("attention.json");
  const Kind& softmax = Registry::builtin().find("softmax_attention");
  const auto width = sizes["width"].get<Index>();
  std::vector<Cost> costs;
  const auto measure = [&](const std::string& name, const Kind& kind, const Json& settings) {
    const bool causal = kind.graphs != Kind::Graphs::encoder;
    if (causal && Subject(kind, settings, width, 70, s.flags.threads).bits_depend_on_the_split())
      fail(name, ": bits depend on the split; no figure is printed for it");
    Subject plain(softmax, sizes["plain"], width, s.tokens, s.flags.threads, causal);
    Subject subject(kind, settings, width, s.tokens, s.flags.threads);
    Cost cost = cost_over(plain, subject, s);
    cost.name = name;
    cost.reason = sizes["reasons"].value(name, "");
    print(cost, s.tokens);
    costs.push_back(std::move(cost));
  };
  print_costs_header("option", "plain us");
  for (const auto& [name, changes] : sizes["options"].items()) {
    Json settings = sizes["plain"];
    settings.update(changes);
    measure(name, softmax, settings);
  }
  print_costs_header("kind of attention", "plain us");
  for (const auto& [key, settings] : sizes["kinds"].items())
    measure(key, Registry::builtin().find(key), settings);
  return costs;
}

// The kinds of constant state over their arithmetic.
std::vector<Cost> recurrence_costs(const Settings& s) {
  std::vector<Cost> costs;
  print_costs_header("kind", "arithmetic us");
  const Json all = read_sizes("layers.json");
  for (const auto& [key, sizes] : all.items()) {
    if (!sizes.contains("recurrence")) continue;
    const Json& recurrence = sizes["recurrence"];
    Subject subject(kind_of(key, sizes), sizes["settings"], sizes["width"].get<Index>(), s.tokens,
                    s.flags.threads);
    Cost cost{key, 1e30, 1e30, recurrence.value("reason", "")};
    for (Index r = 0; r < s.flags.repeat; ++r) {
      cost.yardstick = std::min(cost.yardstick, processor_seconds([&] { subject.products(s.tokens); }));
      cost.seconds = std::min(cost.seconds, processor_seconds([&] { subject.run(s.tokens); }));
    }
    cost.yardstick *= 1 + recurrence["operations"].get<double>() / subject.product_operations();
    print(cost, s.tokens);
    costs.push_back(std::move(cost));
  }
  return costs;
}

void report_costs(const Settings& s) {
  std::printf("isa %s, %d threads, f32, %ld tokens, processor time, best of %ld\n", kernels().name,
              s.flags.threads, static_cast<long>(s.tokens), static_cast<long>(s.flags.repeat));
  std::vector<Cost> costs = attention_costs(s);
  if (s.all)
    for (Cost& cost : recurrence_costs(s)) costs.push_back(std::move(cost));
  const auto slow = std::count_if(costs.begin(), costs.end(), [](const Cost& c) { return c.exceeds(); });
  const auto worst = std::max_element(costs.begin(), costs.end(),
                                      [](const Cost& a, const Cost& b) { return a.ratio() < b.ratio(); });
  std::printf("%ld of %zu exceed their target; the worst is %s, %.2f times (limit %.0f)\n",
              static_cast<long>(slow), costs.size(), worst->name.c_str(), worst->ratio(), Cost::kLimit);
  if (s.json.empty()) return;
  Json all = Json::array();
  for (const Cost& cost : costs)
    all.push_back({{"name", cost.name},
                   {"tokens", s.tokens},
                   {"ratio", cost.ratio()},
                   {"target", Cost::kTarget},
                   {"reason", cost.reason}});
  if (!(std::ofstream(s.json) << all.dump(1) << "\n")) fail("cannot write '", s.json, "'");
}

void report_all(const Settings& s) {
  if (s.options || s.all) return report_costs(s);
  const Json sizes = read_sizes("layers.json");
  for (const std::string& kind : s.kinds)
    if (!sizes.contains(kind)) fail("no sizes for kind '", kind, "' in bench/layers.json");
  std::printf("isa %s, %d threads, f32, best of %ld\n", kernels().name, s.flags.threads,
              static_cast<long>(s.flags.repeat));
  if (s.edits)
    std::printf("%-24s %-32s %10s %10s %8s\n", "kind", "edit", "plain us", "edited us", "ratio");
  else
    std::printf("%-24s %10s %10s %11s %12s\n", "kind", "prefill us", "decode us", "products", "state bytes");
  for (const auto& [key, value] : sizes.items())
    if (s.kinds.empty() || std::find(s.kinds.begin(), s.kinds.end(), key) != s.kinds.end())
      s.edits ? report_edits(s, key, value) : report(s, key, value);
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) {
  plait::Settings s;
  CLI::App app("One layer at a time: prefill, decode, its own products, state.", "bench_layers");
  app.add_option("KIND", s.kinds, "Kinds (default: all of bench/layers.json)");
  app.add_option("--tokens", s.tokens, "Tokens of the prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_flag("--edits", s.edits, "Processor time under each edit over that without, in prefill");
  app.add_flag("--options", s.options,
               "Processor time of the options and other kinds of attention over plain softmax");
  app.add_flag("--all", s.all, "--options, and the kinds of constant state over their arithmetic");
  app.add_option("--json", s.json, "File for what --options or --all prints");
  s.flags.add_to(app);
  return plait::run_bench(app, argc, argv, [&] {
    if (!s.json.empty() && !s.options && !s.all) plait::fail("--json needs --options or --all");
    if (s.flags.smoke) s.tokens = 70, s.flags.repeat = 1;
    plait::report_all(s);
  });
}
