#include "layers/reference/mamba2.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/recurrence.h"

namespace plait {

Mamba2Settings read_mamba2(Config& config) {
  Mamba2Settings s;
  s.width = config.width();
  s.chunk = config.surroundings().grids.chunk;
  s.num_heads = config.integer("num_heads", "heads");
  s.head_dim = config.integer("head_dim", "width of a head");
  s.state_dim = config.integer("state_dim", "width of B and C");
  s.num_groups = config.integer_or("num_groups", s.num_groups, "heads of B and C", 1);
  s.conv = config.integer_or("conv", s.conv, "kernel of the short convolution on x, B, C (with silu)", 1);
  s.conv_bias = config.boolean_or("conv_bias", s.conv_bias, "bias of the convolution");
  s.dt_min = config.number_or("dt_min", s.dt_min, "lower limit of the step");
  s.dt_max = config.number_or("dt_max", s.dt_max, "upper limit of the step; absent = none");
  s.norm = static_cast<Mamba2Settings::Norm>(config.choice(
      "norm", {"gated_rms", "gate_only", "norm_before_gate"}, "gated_rms: gate, then norm per group"));
  s.norm_eps = config.number_or("norm_eps", s.norm_eps, "of the output norm", 0);
  s.skip_d = config.boolean_or("skip_d", s.skip_d, "adds D x to a head's output");
  s.in_bias = config.boolean_or("in_bias", s.in_bias, "bias of the input projection");
  s.out_bias = config.boolean_or("out_bias", s.out_bias, "bias of the output projection");
  s.input_multiplier =
      config.number_or("input_multiplier", s.input_multiplier, "factor on the input, not on in_bias");
  s.slice_multipliers =
      config.numbers_or("slice_multipliers", s.slice_multipliers,
                        "factors on z, x, B, C, dt behind the input projection and its bias");
  if (s.slice_multipliers.size() != 5)
    config.refuse("slice_multipliers has ", s.slice_multipliers.size(),
                  " factors, but z, x, B, C and dt take one each");
  if (s.num_heads % s.num_groups != 0)
    config.refuse("num_heads ", s.num_heads, " is not a multiple of num_groups ", s.num_groups);
  if (s.dt_min > s.dt_max) config.refuse("dt_min ", s.dt_min, " is above dt_max ", s.dt_max);
  s.query = read_query(config, s.num_heads, false);
  config.finish();
  return s;
}

std::vector<TensorSpec> mamba2_tensors(const Mamba2Settings& s) {
  const char* in_rows = "[2 * num_heads * head_dim + 2 * num_groups * state_dim + num_heads, width]";
  std::vector<TensorSpec> specs = {
      {"in", {s.in_rows(), s.width}, Init::normal, in_rows, true},
      {"conv_weight",
       {s.conv_channels(), s.conv},
       Init::taps,
       "[num_heads * head_dim + 2 * num_groups * state_dim, conv]"},
      {"dt_bias", {s.num_heads}, Init::time_step, "[num_heads]"},
      {"a_log", {s.num_heads}, Init::decay_log, "[num_heads]"},
      {"out", {s.width, s.inner()}, Init::normal, "[width, num_heads * head_dim]", true}};
  if (s.conv_bias)
    specs.push_back({"conv_bias",
                     {s.conv_channels()},
                     Init::small,
                     "[num_heads * head_dim + 2 * num_groups * state_dim]"});
  if (s.skip_d) specs.push_back({"d", {s.num_heads}, Init::ones, "[num_heads]"});
  if (s.norm != Mamba2Settings::Norm::gate_only)
    specs.push_back({"norm", {s.inner()}, Init::around_one, "[num_heads * head_dim]"});
  if (s.in_bias) specs.push_back({"in_bias", {s.in_rows()}, Init::small, "[rows of in]"});
  if (s.out_bias) specs.push_back({"out_bias", {s.width}, Init::small, "[width]"});
  add_query_tensors(s.query, s.num_heads, specs);
  return specs;
}

namespace {

using Norm = Mamba2Settings::Norm;
using reference::Rows;

class Mamba2Twin final : public Twin {
 public:
  Mamba2Twin(const Mamba2Settings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters), lambda_(query_lambdas(settings.query, parameters)) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const Rows all = projected(inputs[0]);
    const Rows z = columns(all, 0, s_.inner());
    const Rows mixed = convolved(columns(all, s_.inner(), s_.conv_channels()));
    const Rows dt = steps(columns(all, s_.inner() + s_.conv_channels(), s_.num_heads));
    const Rows b = columns(mixed, s_.inner(), s_.groups_width());
    Rows c = columns(mixed, s_.inner() + s_.groups_width(), s_.groups_width());
    if (s_.query) condition(c, b, dt);
    Rows y = scan(columns(mixed, 0, s_.inner()), b, c, dt);
    gate(y, z);
    Rows out = weights_.project("out", y.view());
    if (s_.out_bias) add_bias(out, "out_bias");
    for (Index t = 0; t < out.rows; ++t) std::copy_n(out.row(t), out.cols, output.row(t));
  }

 private:
  static Rows columns(const Rows& all, Index first, Index count) {
    Rows some(all.rows, count);
    for (Index t = 0; t < all.rows; ++t) std::copy_n(all.row(t) + first, count, some.row(t));
    return some;
  }
  void add_bias(Rows& x, const char* name) const {
    for (Index t = 0; t < x.rows; ++t)
      for (Index c = 0; c < x.cols; ++c) x(t, c) += weights_.at(name, c);
  }
  // [z | x | B | C | dt]
  Rows projected(View<const double> u) const {
    Rows scaled(u.rows, u.cols);
    for (Index t = 0; t < u.rows; ++t)
      for (Index c = 0; c < u.cols; ++c) scaled(t, c) = s_.input_multiplier * u(t, c);
    Rows all = weights_.project("in", scaled.view());
    if (s_.in_bias) add_bias(all, "in_bias");
    Index first = 0;
    for (std::size_t i = 0; i < 5; ++i) {
      for (Index t = 0; t < all.rows; ++t)
        for (Index c = first; c < first + s_.slices()[i]; ++c) all(t, c) *= s_.slice_multipliers[i];
      first += s_.slices()[i];
    }
    return all;
  }
  Rows convolved(const Rows& x) const {
    Rows y =
        weights_.convolve("conv_weight", x, s_.conv_bias ? weights_["conv_bias"] : std::vector<double>());
    reference::map(y, reference::silu);
    return y;
  }
  Rows steps(Rows dt) const {
    for (Index t = 0; t < dt.rows; ++t)
      for (Index h = 0; h < s_.num_heads; ++h)
        dt(t, h) =
            std::clamp(reference::softplus(dt(t, h) + weights_.at("dt_bias", h)), s_.dt_min, s_.dt_max);
    return dt;
  }

  // c [rows, num_heads * state_dim] of the heads' own queries
  void condition(Rows& c, const Rows& b, const Rows& dt) const {
    Rows g = dt;
    for (Index t = 0; t < g.rows; ++t)
      for (Index h = 0; h < g.cols; ++h) g(t, h) *= -std::exp(weights_.at("a_log", h));
    reference::Heads heads{s_.num_groups, s_.num_groups, s_.num_heads, s_.state_dim, s_.head_dim};
    reference::condition_query(*s_.query, lambda_, heads, c, b, &g);
  }

  // h = e^{dt A} h + dt x B'; y = h C + D x, state [head_dim, state_dim] as the paper has it.
  Rows scan(const Rows& x, const Rows& b, const Rows& c, const Rows& dt) const {
    Rows y(x.rows, x.cols);
    const Index p = s_.head_dim, n = s_.state_dim;
    for (Index h = 0; h < s_.num_heads; ++h) {
      const Index group = h / (s_.num_heads / s_.num_groups) * n;
      const Index query = h / (s_.num_heads / (c.cols / n)) * n;
      const double a = -std::exp(weights_.at("a_log", h));
      std::vector<double> state(static_cast<std::size_t>(p * n));
      for (Index t = 0; t < x.rows; ++t)
        for (Index i = 0; i < p; ++i) {
          double* row = state.data() + i * n;
          const double in = x(t, h * p + i);
          double sum = s_.skip_d ? weights_.at("d", h) * in : 0;
          for (Index j = 0; j < n; ++j) {
            row[j] = std::exp(dt(t, h) * a) * row[j] + dt(t, h) * in * b(t, group + j);
            sum += row[j] * c(t, query + j);
          }
          y(t, h * p + i) = sum;
        }
    }
    return y;
  }

  void gate(Rows& y, const Rows& z) const {
    const Index width = s_.inner() / s_.num_groups;
    if (s_.norm == Norm::norm_before_gate) reference::rms_normalise(y, width, s_.norm_eps, weights_["norm"]);
    for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] *= reference::silu(z.data[i]);
    if (s_.norm == Norm::gated_rms) reference::rms_normalise(y, width, s_.norm_eps, weights_["norm"]);
  }

  Mamba2Settings s_;
  reference::Weights weights_;
  std::vector<double> lambda_;  // of the query
};

}  // namespace

std::shared_ptr<Twin> make_mamba2_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<Mamba2Twin>(read_mamba2(config), parameters);
}

}  // namespace plait
