// A recurrent mixer of form A or B, or one that solves for its reads, in double, token by token, with one
// edit applied where its definition says: what the edits of the kinds are tested against.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "layers/reference/mesa_net.h"
#include "layers/reference/recurrence.h"
#include "runtime/base/noise.h"
#include "runtime/run/edit_plan.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"
#include "tests/typical_edit.h"

namespace plait::testing {

// One edit over the tokens [begin, end).
struct RangeEdit {
  Edit edit;
  Index begin = 0, end = 0;
  bool at(Site site, Operator op, Index token, Index head) const {
    return edit.site == site && edit.op == op && token >= begin && token < end && covers(edit, head);
  }
};

inline RangeEdit range_edit(Site site, Operator op, Index begin, Index end, std::vector<Index> heads = {},
                            double value = 0) {
  RangeEdit range{{}, begin, end};
  range.edit.node = "tested";
  range.edit.site = site;
  range.edit.op = op;
  range.edit.heads = std::move(heads);
  range.edit.value = value;
  return range;
}

// Whether an edit acts on the matrix a state is, not on the rows that change or read it:
// tests/identities/state_edits_test.cc.
inline bool on_the_matrix(const Edit& edit) { return edit.every != Every::unset; }

// o [channels] of a head under head/{zero, mean, resample, noise} and gate/mean: the values of one row.
inline void edit_head(const RangeEdit& e, Index token, Index head, Index heads, double* o, Index channels) {
  const auto value = [&](Index row, Index c) {
    return e.edit.values[static_cast<std::size_t>((row * heads + head) * channels + c)];
  };
  double square = 0;
  for (Index c = 0; c < channels; ++c) square += o[c] * o[c] / static_cast<double>(channels);
  std::vector<float> z(static_cast<std::size_t>(channels));
  add_noise(noise_key({e.edit.seed, 0, static_cast<std::uint64_t>(head), static_cast<std::uint64_t>(token)}),
            1, z.data(), channels);
  for (Index c = 0; c < channels; ++c) {
    if (e.at(Site::head, Operator::zero, token, head)) o[c] = 0;
    if (e.at(Site::head, Operator::mean, token, head)) o[c] = value(0, c);
    if (e.at(Site::head, Operator::resample, token, head)) o[c] = value(token - e.begin, c);
    if (e.at(Site::head, Operator::noise, token, head))
      o[c] += e.edit.value * std::sqrt(square) * static_cast<double>(z[static_cast<std::size_t>(c)]);
  }
}

// The fast kind over the rows in pieces: before the range, inside it in pieces of 7 with the edit, after it.
inline std::vector<float> run_edited(const OneKind& kind, const KindInput& input, const RangeEdit& range) {
  const Layer& layer = kind.layer();
  const Index in = layer.signature().inputs[0], out = layer.signature().output;
  std::vector<float> y(static_cast<std::size_t>(input.rows * out), std::nanf(""));
  State state(layer.fields());
  state.remember(memory_of(range.edit));
  Edits edits;
  edits.add(&range.edit);
  Context context{};
  const std::vector<View<const float>> inputs = {{input.inputs[0].data(), input.rows, in}};
  Ports ports;
  ports.inputs = inputs;
  ports.output = View<float>(y.data(), input.rows, out);
  for (Index first = 0; first < input.rows;) {
    const bool inside = first >= range.begin && first < range.end;
    const Index stop = inside                ? std::min(range.end, first + 7)
                       : first < range.begin ? range.begin
                                             : input.rows;
    const Segment segment{&state, first, first, stop - first, inside ? &edits : nullptr};
    layer.run(ports, {&segment, 1}, context);
    state.advance(first = stop);
  }
  return y;
}

// The typical edits of a site and operator, but for those of the matrix.
inline std::vector<RangeEdit> range_edits(const SiteSpec& site, Operator op, Index begin, Index end,
                                          const std::vector<Index>& heads) {
  std::vector<RangeEdit> all;
  for (Edit& edit : typical_edits("tested", site, op, begin, end)) {
    edit.heads = heads;
    if (!on_the_matrix(edit)) all.push_back({edit, begin, end});
  }
  return all;
}

class MixerDefinition {
 public:
  using Rows = reference::Rows;

  // settings: with every key that differs from its default; the heads always.
  MixerDefinition(const std::string& kind, const Json& settings, const OneKind::Values& values)
      : kind_(kind), s_(settings), w_(parameters(values)) {
    mamba_ = kind == "mamba2";
    mesa_ = kind == "mesa_net";  // with the exact solver
    key_ = integer(mamba_ ? "state_dim" : "head_dim", 0);
    value_ = mamba_ ? integer("head_dim", 0) : integer("value_head_dim", key_);
    const Index heads = integer("num_heads", 0);
    queries_ = mamba_ ? integer("num_groups", 1) : heads;
    keys_ = mamba_ ? queries_ : integer("num_kv_heads", heads);
    states_ = mamba_ ? heads : integer("num_value_heads", keys_);
    outputs_ = std::max(queries_, states_);
  }

  std::vector<double> run(const KindInput& input, const RangeEdit& edit) const {
    std::vector<double> wide = widen(input.inputs[0]);
    const View<const double> x(wide.data(), input.rows, static_cast<Index>(wide.size()) / input.rows);
    Inputs in = mamba_ ? mamba_inputs(x, edit) : linear_inputs(x, edit);
    strengths(in, edit);
    Rows o = recur(in, edit);
    finish(in, o, edit);
    return w_.project(mamba_ ? "out" : "o", o.view()).data;
  }

 private:
  struct Inputs {
    Rows q, k, v, g, erase, write;  // g [rows, states * channels]; erase, write [rows, states]
    Rows z;                         // gate before its function, or no columns
    Index key;                      // columns of a head of q and k
  };

  static Parameters parameters(const OneKind::Values& values) {
    std::map<std::string, Tensor> tensors;
    for (const auto& [name, numbers] : values)
      tensors[name] = make_tensor({static_cast<Index>(numbers.size())}, numbers);
    return Parameters(tensors);
  }
  Index integer(const char* key, Index fallback) const { return s_.value(key, fallback); }
  std::string text(const char* key, const char* fallback) const {
    return s_.value(key, std::string(fallback));
  }

  Rows convolve(const Rows& x, const std::string& taps, const std::vector<double>& bias,
                const RangeEdit& e) const {
    const std::vector<double>& weight = w_[taps];
    const Index kernel = static_cast<Index>(weight.size()) / x.cols;
    Rows y(x.rows, x.cols);
    for (Index t = 0; t < x.rows; ++t)
      for (Index c = 0; c < x.cols; ++c) {
        if (e.at(Site::conv, Operator::identity, t, 0)) {
          y(t, c) = x(t, c);
          continue;
        }
        y(t, c) = bias.empty() ? 0 : bias[static_cast<std::size_t>(c)];
        const Index taps_seen = e.at(Site::conv, Operator::current_tap, t, 0) ? 1 : kernel;
        for (Index back = 0; back < taps_seen && back <= t; ++back)
          y(t, c) += weight[static_cast<std::size_t>(c * kernel + kernel - 1 - back)] * x(t - back, c);
      }
    return y;
  }

  Rows input(const char* name, View<const double> x, const RangeEdit& e) const {
    const bool activated = mesa_ || kind_ == "delta_net" || kind_ == "gated_delta_net";
    const Index kernel = integer("conv", activated ? 4 : 0);
    Rows y = w_.project(name, x);
    if (mesa_ && name == std::string("v")) return y;
    if (kernel > 0) y = convolve(y, std::string(name) + "_conv", {}, e);
    if (kernel > 0 || activated) activate(y, e);
    return y;
  }

  static void activate(Rows& y, const RangeEdit& e) {
    for (Index t = 0; t < y.rows; ++t)
      for (Index c = 0; c < y.cols; ++c)
        if (!(e.edit.drop_activation && e.at(Site::conv, Operator::identity, t, 0)))
          y(t, c) = reference::silu(y(t, c));
  }

  void normalise(Rows& x, const RangeEdit& e) const {
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < x.cols / key_; ++h) {
        double sum = 1e-6;
        for (Index d = 0; d < key_; ++d) sum += x(t, h * key_ + d) * x(t, h * key_ + d);
        if (!e.at(Site::qk_norm, Operator::off, t, h))
          for (Index d = 0; d < key_; ++d) x(t, h * key_ + d) /= std::sqrt(sum);
      }
  }

  Inputs linear_inputs(View<const double> x, const RangeEdit& e) const {
    Inputs in{input("q", x, e),      input("k", x, e),      input("v", x, e), Rows(x.rows, states_),
              Rows(x.rows, states_), Rows(x.rows, states_), Rows(x.rows, 0),  key_};
    reference::map(in.write, [](double) { return 1.0; });
    if (by_features()) {
      in.q = features(in.q);
      in.k = features(in.k);
      in.key = in.q.cols / queries_;
    }
    if (mesa_ || kind_ == "delta_net" || kind_ == "gated_delta_net") {
      normalise(in.q, e);
      normalise(in.k, e);
      in.write = w_.project("beta", x);
      if (mesa_) add_bias(in.write, "beta_bias");
      reference::map(in.write, reference::sigmoid);
      if (!mesa_) in.erase = in.write;
    }
    if (mesa_) {
      in.g = w_.project("a", x);
      add_bias(in.g, "a_bias");
      reference::map(in.g, reference::log_sigmoid);
    }
    if (kind_ == "gated_delta_net") {
      in.g = w_.project("a", x);
      for (Index t = 0; t < x.rows; ++t)
        for (Index h = 0; h < states_; ++h)
          in.g(t, h) = -std::exp(w_.at("a_log", h)) * reference::softplus(in.g(t, h) + w_.at("dt_bias", h));
    }
    if (kind_ == "gated_linear_attention") {
      in.g = w_.project("decay_1", w_.project("decay_0", x).view());
      for (Index t = 0; t < x.rows; ++t)
        for (Index c = 0; c < in.g.cols; ++c)
          in.g(t, c) = reference::log_sigmoid(in.g(t, c) + w_.at("decay_bias", c)) /
                       s_.value("decay_temperature", 16.0);
    }
    if (text("gate", kind_ == "gated_delta_net" || kind_ == "gated_linear_attention" ? "silu" : "none") !=
        "none")
      in.z = w_.project("gate", x);
    if (!mesa_ && (!by_features() || kind_ == "linear_attention"))
      for (double& value : in.q.data) value /= std::sqrt(static_cast<double>(key_));
    return in;
  }

  // The kinds that are a feature map and a division by the sum of weights, without a norm at the end.
  bool by_features() const {
    return kind_ == "linear_attention" || kind_ == "cosformer" || kind_ == "based" || kind_ == "rebased";
  }
  double divisor(double mass) const {
    return kind_ == "cosformer" ? std::max(mass, 1e-6) : mass + (kind_ == "linear_attention" ? 1e-10 : 1e-12);
  }

  // Head by head: elu + 1, relu with cosine reweighting, 1 and x and x x^T, x x^T.
  Rows features(const Rows& x) const {
    Rows y(x.rows, 0);
    for (Index t = 0; t < x.rows; ++t)
      for (Index c = 0; c < x.cols; c += key_) append_features(x.row(t) + c, t, y.data);
    y.cols = static_cast<Index>(y.data.size()) / x.rows;
    return y;
  }
  void append_features(const double* x, Index token, std::vector<double>& y) const {
    const double d = static_cast<double>(key_);
    if (kind_ == "linear_attention")
      for (Index i = 0; i < key_; ++i) y.push_back(x[i] > 0 ? x[i] + 1 : std::exp(x[i]));
    if (kind_ == "cosformer") {
      const double angle = std::acos(0.0) * static_cast<double>(token + 1) / s_.at("M").get<double>();
      for (const double factor : {std::sin(angle), std::cos(angle)})
        for (Index i = 0; i < key_; ++i) y.push_back(std::max(x[i], 0.0) * factor);
    }
    if (kind_ == "based") {
      y.push_back(1);
      for (Index i = 0; i < key_; ++i) y.push_back(x[i] / std::pow(d, 0.25));
    }
    if (kind_ == "based" || kind_ == "rebased")
      for (Index i = 0; i < key_; ++i)
        for (Index j = 0; j < key_; ++j) y.push_back(x[i] * x[j] / std::sqrt(kind_ == "based" ? 2 * d : d));
  }

  void add_bias(Rows& y, const char* name) const {
    for (Index t = 0; t < y.rows; ++t)
      for (Index c = 0; c < y.cols; ++c) y(t, c) += w_.at(name, c);
  }

  Inputs mamba_inputs(View<const double> x, const RangeEdit& e) const {
    const Rows all = w_.project("in", x);
    const Index inner = states_ * value_, group = queries_ * key_;
    const auto columns = [](const Rows& from, Index first, Index count) {
      Rows some(from.rows, count);
      for (Index t = 0; t < from.rows; ++t) std::copy_n(from.row(t) + first, count, some.row(t));
      return some;
    };
    Rows mixed = convolve(columns(all, inner, inner + 2 * group), "conv_weight", w_["conv_bias"], e);
    activate(mixed, e);
    Rows dt = columns(all, 2 * inner + 2 * group, states_), g = dt;
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < states_; ++h) {
        dt(t, h) = reference::softplus(dt(t, h) + w_.at("dt_bias", h));
        g(t, h) = -std::exp(w_.at("a_log", h)) * dt(t, h);
      }
    return {columns(mixed, inner + group, group),
            columns(mixed, inner, group),
            columns(mixed, 0, inner),
            g,
            Rows(x.rows, states_),
            dt,
            columns(all, 0, inner),
            key_};
  }

  void strengths(Inputs& in, const RangeEdit& e) const {
    const Index channels = in.g.cols / states_;
    const bool delta = kind_ == "delta_net" || kind_ == "gated_delta_net";
    for (Index t = 0; t < in.q.rows; ++t)
      for (Index h = 0; h < states_; ++h) {
        const auto at = [&](Site site, Operator op) { return e.at(site, op, t, h); };
        for (Index c = h * channels; c < (h + 1) * channels; ++c) {
          if (at(Site::decay, Operator::one) || at(Site::state, Operator::freeze)) in.g(t, c) = 0;
          if (at(Site::decay, Operator::zero)) in.g(t, c) = -1e9;
          if (at(Site::decay, Operator::constant)) in.g(t, c) = e.edit.value;
        }
        if (at(Site::write, Operator::constant)) in.write(t, h) = e.edit.value;
        if (at(Site::write, Operator::constant) && delta) in.erase(t, h) = e.edit.value;
        if (at(Site::erase, Operator::off) && !e.edit.norm_match) in.erase(t, h) = 0;
        if (at(Site::write, Operator::zero) || at(Site::state, Operator::no_write) ||
            at(Site::state, Operator::delete_write) || at(Site::state, Operator::freeze))
          in.write(t, h) = in.erase(t, h) = 0;
      }
  }

  // Reads of the state, with the mass in a column of its own for a normalised kind, and the sum of write k k'
  // behind it for one that solves.
  Rows recur(const Inputs& in, const RangeEdit& e) const {
    Rows o(in.q.rows, outputs_ * value_);
    const Index channels = in.g.cols / states_, reads = outputs_ / states_;
    for (Index h = 0; h < states_; ++h) {
      const Index columns = value_ + 1 + (mesa_ ? key_ : 0);
      Rows s(in.key, columns);  // column value_ sums write * k
      std::vector<Rows> past;   // s after each token
      std::vector<double> own(static_cast<std::size_t>(columns)), erased = own;
      for (Index t = 0; t < in.q.rows; ++t) {
        const double* k = in.k.row(t) + h / (states_ / keys_) * in.key;
        for (Index d = 0; d < in.key; ++d)
          for (Index c = 0; c < columns; ++c)
            s(d, c) *= std::exp(in.g(t, h * channels + (channels == 1 ? 0 : d)));
        for (Index c = 0; c < columns; ++c) {
          double old = 0;
          for (Index d = 0; d < in.key; ++d) old += s(d, c) * k[d];
          const double v = c < value_ ? in.v(t, h * value_ + c) : c == value_ ? 1 : k[c - value_ - 1];
          own[static_cast<std::size_t>(c)] = in.write(t, h) * v;
          erased[static_cast<std::size_t>(c)] = in.write(t, h) * v - in.erase(t, h) * old;
        }
        if (e.edit.norm_match && e.at(Site::erase, Operator::off, t, h)) match_norm(own, erased);
        for (Index c = 0; c < columns; ++c)
          for (Index d = 0; d < in.key; ++d) s(d, c) += k[d] * erased[static_cast<std::size_t>(c)];
        past.push_back(s);
        for (Index i = h * reads; i < (h + 1) * reads; ++i) {
          const Index back = e.at(Site::state, Operator::stale, t, i) ? static_cast<Index>(e.edit.value) : 0;
          if (back <= t) read(in, e, past[static_cast<std::size_t>(t - back)], t, i, o.row(t) + i * value_);
        }
      }
    }
    return o;
  }

  // erased <- own in the length of erased; the column that sums write * k is no value.
  static void match_norm(const std::vector<double>& own, std::vector<double>& erased) {
    double have = 0, want = 0;
    for (std::size_t c = 0; c + 1 < own.size(); ++c) have += own[c] * own[c], want += erased[c] * erased[c];
    for (std::size_t c = 0; c + 1 < own.size(); ++c) erased[c] = own[c] * std::sqrt(want / have);
  }

  void read(const Inputs& in, const RangeEdit& e, const Rows& s, Index t, Index output, double* o) const {
    if (e.at(Site::state, Operator::zero, t, output) || e.at(Site::state, Operator::no_read, t, output))
      return;
    std::vector<double> q(static_cast<std::size_t>(in.key));
    std::copy_n(in.q.row(t) + output / (outputs_ / queries_) * in.key, in.key, q.data());
    if (mesa_) q = solve(s, output, q);
    double mass = 0;
    for (Index d = 0; d < in.key; ++d) {
      for (Index c = 0; c < value_; ++c) o[c] += s(d, c) * q[static_cast<std::size_t>(d)];
      mass += s(d, value_) * q[static_cast<std::size_t>(d)];
    }
    for (Index c = 0; by_features() && c < value_; ++c) o[c] /= divisor(mass);
  }

  // x of (H + diag(softplus(lambda) + 1/4)) x = q
  std::vector<double> solve(const Rows& s, Index head, const std::vector<double>& q) const {
    Rows gram(key_, key_);
    std::vector<double> ridge;
    for (Index d = 0; d < key_; ++d) {
      std::copy_n(s.row(d) + value_ + 1, key_, gram.row(d));
      ridge.push_back(reference::softplus(w_.at("lambda", head * key_ + d)) + 0.25);
    }
    return reference::solve_exactly(gram, ridge, q);
  }

  // Skip, norm, gate and head edits.
  void finish(const Inputs& in, Rows& o, const RangeEdit& e) const {
    for (Index t = 0; t < o.rows; ++t)
      for (Index c = 0; c < o.cols; ++c) {
        if (mamba_ && !e.at(Site::skip_d, Operator::zero, t, c / value_))
          o(t, c) += w_.at("d", c / value_) * in.v(t, c);
      }
    for (Index t = 0; t < o.rows; ++t)
      for (Index h = 0; h < outputs_; ++h) edit_head(e, t, h, outputs_, o.row(t) + h * value_, value_);
    const bool norm_first = !mamba_;
    if (norm_first && !by_features()) reference::rms_normalise(o, value_, 1e-5, w_["norm"]);
    for (Index t = 0; in.z.cols > 0 && t < o.rows; ++t)
      for (Index c = 0; c < o.cols; ++c)
        if (e.at(Site::gate, Operator::mean, t, c / value_))
          o(t, c) *= e.edit.values[static_cast<std::size_t>(c)];
        else if (!e.at(Site::gate, Operator::one, t, c / value_))
          o(t, c) *= reference::silu(in.z(t, c));
    if (mamba_) reference::rms_normalise(o, o.cols / queries_, 1e-5, w_["norm"]);
    for (Index t = 0; t < o.rows; ++t)
      for (Index c = 0; c < o.cols; ++c)
        if (e.at(Site::head, Operator::scale, t, c / value_)) o(t, c) *= e.edit.value;
  }

  std::string kind_;
  Json s_;
  reference::Weights w_;
  bool mamba_ = false, mesa_ = false;
  Index key_ = 0, value_ = 0, queries_ = 0, keys_ = 0, states_ = 0, outputs_ = 0;
};

// Every site and operator the kind declares against its definition: on all heads and on one, over a range of
// tokens that begins and ends inside chunks; and each edit must change something.
inline void expect_edits_as_defined(const std::string& name, const Json& settings,
                                    const Surroundings& surroundings, double c, double length) {
  const OneKind::Values values = OneKind::random_values(name, settings, surroundings, 21);
  const OneKind kind(name, settings, surroundings, values);
  const MixerDefinition definition(name, settings, values);
  const KindInput input = random_input(90, surroundings.width, 22);
  const std::vector<float> plain = kind.run(input);
  expect_near(plain, definition.run(input, {}), c, length);
  for (const SiteSpec& site : kind.layer().sites())
    for (const Operator op : site.operators)
      for (const std::vector<Index>& heads : std::vector<std::vector<Index>>{{}, {1}}) {
        if (site.site == Site::conv && !heads.empty()) continue;  // the whole convolution
        for (const RangeEdit& range : range_edits(site, op, 20, 70, heads)) {
          SCOPED_TRACE(name + " " + describe(range.edit) + (heads.empty() ? "" : " head 1"));
          const std::vector<float> edited = run_edited(kind, input, range);
          expect_near(edited, definition.run(input, range), c, length);
          EXPECT_FALSE(same_bits(edited, plain));
        }
      }
}

}  // namespace plait::testing
