#include <gtest/gtest.h>

#include "tests/identities/mixer_definition.h"

namespace plait {
namespace {

using namespace testing;
using reference::Rows;

constexpr Index kRows = 100, kWidth = 40;
const Json kSettings = {{"num_heads", 2}, {"head_dim", 24}, {"mini_batch", 16}, {"gate", "gelu_tanh"}};

Surroundings surroundings() {
  Surroundings s;
  s.width = kWidth;
  return s;
}

OneKind::Values random_values(const Json& settings) {
  return OneKind::random_values("ttt_linear", settings, surroundings(), 1);
}

// Projections, products with the weights, the sum over tokens and the output projection; three norms divide
// by what may be a small sum, hence the factor 16.
constexpr double kLength = kWidth + 24 + kRows + 48;

// Identity 26: the twin is the primal form, the layer the dual.
TEST(TttLinear, DualIsPrimal) {
  const KindInput input = random_input(kRows, kWidth, 2);
  for (const Json& more :
       {Json::object(), Json{{"mini_batch", 1}}, Json{{"mini_batch", 5}, {"conv", 4}, {"base_lr", 0.5}},
        Json{{"mini_batch", 40}, {"rope_theta", 0}, {"gate", "none"}, {"conv", 0}, {"head_dim", 33}}}) {
    Json settings = kSettings;
    settings.update(more);
    const OneKind kind("ttt_linear", settings, surroundings(), random_values(settings));
    SCOPED_TRACE(more.dump());
    const std::vector<float> whole = kind.run(input);
    expect_near(whole, kind.twin(input), 16, kLength);
    for (const std::vector<Index>& split : std::vector<std::vector<Index>>{{1}, {3, 14, 16}, {40, 7}})
      EXPECT_TRUE(same_bits(kind.run(input, {.split = split}), whole)) << split[0];
  }
}

// By definition, in the dual form of the authors' code for a whole mini-batch, with one edit.
class Definition {
 public:
  Definition(const Json& settings, const OneKind::Values& values)
      : f_(settings["head_dim"]),
        heads_(settings["num_heads"]),
        batch_(settings["mini_batch"]),
        w_(tensors(values)) {}

  std::vector<double> run(const KindInput& input, const RangeEdit& e) const {
    const std::vector<double> wide = widen(input.inputs[0]);
    const View<const double> x(wide.data(), input.rows, kWidth);
    Rows q = w_.project("q", x), k = w_.project("k", x), rate = w_.project("lr", x);
    rotate(q);
    rotate(k);
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < heads_; ++h) {
        rate(t, h) = reference::sigmoid(rate(t, h) + w_.at("lr_bias", h));
        const auto at = [&](Site site, Operator op) { return e.at(site, op, t, h); };
        if (at(Site::write, Operator::constant)) rate(t, h) = e.edit.value;
        if (at(Site::write, Operator::zero) || at(Site::state, Operator::freeze) ||
            at(Site::state, Operator::no_write) || at(Site::state, Operator::delete_write))
          rate(t, h) = 0;
        rate(t, h) /= static_cast<double>(f_);
      }
    const Rows v = w_.project("v", x);
    Rows out(x.rows, heads_ * f_);
    for (Index h = 0; h < heads_; ++h) run_head(h, q, k, v, rate, e, out);
    reference::layer_normalise(out, out.cols, 1e-6, w_["post_norm_weight"], w_["post_norm_bias"]);
    const Rows z = w_.project("gate", x);
    for (Index t = 0; t < out.rows; ++t)
      for (Index c = 0; c < out.cols; ++c) {
        if (e.at(Site::gate, Operator::mean, t, c / f_))
          out(t, c) *= e.edit.values[static_cast<std::size_t>(c)];
        else if (!e.at(Site::gate, Operator::one, t, c / f_))
          out(t, c) *= reference::gelu_tanh(z(t, c));
        if (e.at(Site::head, Operator::scale, t, c / f_)) out(t, c) *= e.edit.value;
      }
    return w_.project("o", out.view()).data;
  }

 private:
  static Parameters tensors(const OneKind::Values& values) {
    std::map<std::string, Tensor> all;
    for (const auto& [name, numbers] : values)
      all[name] = make_tensor({static_cast<Index>(numbers.size())}, numbers);
    return Parameters(all);
  }
  void rotate(Rows& x) const {
    for (Index t = 0; t < x.rows; ++t)
      for (Index c = 0; c < x.cols; c += 2) {
        const double angle = static_cast<double>(t % batch_) *
                             std::pow(10000.0, -static_cast<double>(c % f_) / static_cast<double>(f_));
        const double a = x(t, c), b = x(t, c + 1);
        x(t, c) = a * std::cos(angle) - b * std::sin(angle);
        x(t, c + 1) = a * std::sin(angle) + b * std::cos(angle);
      }
  }
  // (z - mean) / std in place; returns std.
  double standardise(Rows& z) const {
    double mean = 0, square = 0;
    for (double value : z.data) mean += value / static_cast<double>(f_);
    for (double value : z.data) square += (value - mean) * (value - mean) / static_cast<double>(f_);
    const double deviation = std::sqrt(square + 1e-6);
    for (double& value : z.data) value = (value - mean) / deviation;
    return deviation;
  }
  // x W + b of one row.
  Rows predict(const double* x, const Rows& w, const Rows& b) const {
    Rows z = b;
    for (Index d = 0; d < f_; ++d)
      for (Index c = 0; c < f_; ++c) z(0, c) += x[d] * w(d, c);
    return z;
  }
  Rows gradient(Rows z, const double* k, const double* v, Index h) const {
    const double deviation = standardise(z), f = static_cast<double>(f_);
    Rows g(1, f_);
    double sum = 0, product = 0;
    for (Index c = 0; c < f_; ++c) {
      const double gamma = w_.at("ln_weight", h * f_ + c);
      g(0, c) = gamma * (gamma * z(0, c) + w_.at("ln_bias", h * f_ + c) - (v[c] - k[c]));
      sum += g(0, c);
      product += g(0, c) * z(0, c);
    }
    for (Index c = 0; c < f_; ++c) g(0, c) = (f * g(0, c) - sum - z(0, c) * product) / (f * deviation);
    return g;
  }

  void run_head(Index h, const Rows& q, const Rows& k, const Rows& v, const Rows& rate, const RangeEdit& e,
                Rows& out) const {
    Rows w(f_, f_), b(1, f_);
    std::copy_n(w_["w0"].begin() + h * f_ * f_, f_ * f_, w.data.begin());
    std::copy_n(w_["b0"].begin() + h * f_, f_, b.data.begin());
    for (Index start = 0; start < q.rows; start += batch_) {
      const Index end = std::min(q.rows, start + batch_);
      std::vector<Rows> gradients;
      for (Index j = start; j < end; ++j)
        gradients.push_back(
            gradient(predict(k.row(j) + h * f_, w, b), k.row(j) + h * f_, v.row(j) + h * f_, h));
      const auto token = [&](Index i) {
        return std::max(1 / static_cast<double>(i + 1) + w_.at("token_idx", i), 0.0);
      };
      for (Index i = start; i < end; ++i) {
        Rows z = predict(q.row(i) + h * f_, w, b);
        for (Index j = start; j <= i; ++j) {
          double attention = 0;
          for (Index d = h * f_; d < (h + 1) * f_; ++d) attention += q(i, d) * k(j, d);
          const double eta = token(i - start) * rate(j, h);
          for (Index c = 0; c < f_; ++c)
            z(0, c) -= eta * (attention + 1) * gradients[static_cast<std::size_t>(j - start)](0, c);
        }
        finish_row(i, h, z, q, e, out);
      }
      if (end - start < batch_) return;
      for (Index j = start; j < end; ++j)
        for (Index c = 0; c < f_; ++c) {
          const double step =
              token(batch_ - 1) * rate(j, h) * gradients[static_cast<std::size_t>(j - start)](0, c);
          b(0, c) -= step;
          for (Index d = 0; d < f_; ++d) w(d, c) -= step * k(j, h * f_ + d);
        }
    }
  }

  void finish_row(Index t, Index h, Rows z, const Rows& q, const RangeEdit& e, Rows& out) const {
    if (e.at(Site::state, Operator::zero, t, h)) std::fill(z.data.begin(), z.data.end(), 0.0);
    standardise(z);
    for (Index c = 0; c < f_; ++c) {
      const Index channel = h * f_ + c;
      double read = w_.at("ln_weight", channel) * z(0, c) + w_.at("ln_bias", channel);
      if (e.at(Site::state, Operator::no_read, t, h)) read = 0;
      out(t, channel) = q(t, channel) + read;
    }
    testing::edit_head(e, t, h, heads_, out.row(t) + h * f_, f_);
  }

  Index f_, heads_, batch_;
  reference::Weights w_;
};

TEST(TttLinear, EditsAsDefined) {
  const OneKind::Values values = random_values(kSettings);
  const OneKind kind("ttt_linear", kSettings, surroundings(), values);
  const Definition definition(kSettings, values);
  const KindInput input = random_input(90, kWidth, 3);
  const std::vector<float> plain = kind.run(input);
  expect_near(plain, definition.run(input, {}), 16, kLength);
  for (const SiteSpec& site : kind.layer().sites())
    for (const Operator op : site.operators)
      for (const std::vector<Index>& heads : std::vector<std::vector<Index>>{{}, {1}}) {
        for (const RangeEdit& range : testing::range_edits(site, op, 20, 70, heads)) {
          SCOPED_TRACE(testing::describe(range.edit));
          const std::vector<float> edited = run_edited(kind, input, range);
          expect_near(edited, definition.run(input, range), 16, kLength);
          EXPECT_FALSE(same_bits(edited, plain));
        }
      }
}

// The convolutions' edits: bypassed, queries and keys are the same shared projection; one tap is a kernel of
// length 1.
TEST(TttLinear, ConvolutionEdits) {
  Json settings = kSettings;
  settings["conv"] = 4;
  const OneKind::Values values = random_values(settings);
  const OneKind kind("ttt_linear", settings, surroundings(), values);
  const KindInput input = random_input(30, kWidth, 4);

  OneKind::Values separate = values;
  separate["k"] = values.at("q");
  for (const char* name : {"conv_q", "conv_k", "conv_q_bias", "conv_k_bias"}) separate.erase(name);
  const OneKind shared("ttt_linear", kSettings, surroundings(), separate);
  EXPECT_TRUE(same_bits(run_edited(kind, input, range_edit(Site::conv, Operator::identity, 0, 30)),
                        shared.run(input)));

  OneKind::Values one_tap = values;
  for (const char* name : {"conv_q", "conv_k"})
    for (std::size_t i = 0; i < one_tap[name].size(); ++i)
      if (i % 4 != 3) one_tap[name][i] = 0;
  const OneKind masked("ttt_linear", settings, surroundings(), one_tap);
  // A term 0 * x adds nothing.
  const std::vector<float> current =
      run_edited(kind, input, range_edit(Site::conv, Operator::current_tap, 0, 30));
  expect_near(current, widen(masked.run(input)), 1, 1);
}

// A learning rate of zero: the start weights answer every token, x_q + LN(x_q W0 + b0).
TEST(TttLinear, WithoutRateThereIsNoMemory) {
  Json settings = kSettings;
  settings["base_lr"] = 0;
  settings["rope_theta"] = 0;
  const OneKind kind("ttt_linear", settings, surroundings(), random_values(settings));
  KindInput input = random_input(40, kWidth, 5);
  const std::vector<float> together = kind.run(input);
  for (const Index t : {0, 17, 39}) {
    KindInput one;
    one.rows = 1;
    one.inputs = {{input.inputs[0].begin() + t * kWidth, input.inputs[0].begin() + (t + 1) * kWidth}};
    EXPECT_TRUE(
        same_bits(kind.run(one), std::span(together).subspan(static_cast<std::size_t>(t * kWidth), kWidth)));
  }
}

TEST(TttLinear, RefusesOddHeadsWithRotation) {
  Json settings = kSettings;
  settings["head_dim"] = 33;
  Config config("tested", settings, surroundings());
  EXPECT_THROW(Registry::builtin().find("ttt_linear").tensors(config), Error);
}

}  // namespace
}  // namespace plait
