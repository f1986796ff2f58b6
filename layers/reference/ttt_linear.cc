#include "layers/reference/ttt_linear.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/recurrence.h"

namespace plait {

TttLinearSettings read_ttt_linear(Config& config) {
  TttLinearSettings s;
  s.width = config.width();
  s.num_heads = config.integer("num_heads", "heads, each with a linear model of its own");
  s.head_dim = config.integer("head_dim", "width of a head");
  s.mini_batch =
      config.integer_or("mini_batch", s.mini_batch, "tokens that share the weights of a gradient", 1);
  s.base_lr =
      config.number_or("base_lr", s.base_lr, "largest inner learning rate, before the division by head_dim");
  s.rope_theta =
      config.number_or("rope_theta", s.rope_theta, "rotary base, position mod mini_batch; 0 = none");
  s.conv = config.integer_or("conv", s.conv, "kernel of conv_q and conv_k on a shared projection; 0 = none");
  s.gate = read_output_gate(config, {"none", "gelu_tanh", "sigmoid"});
  s.post_norm_eps =
      config.number_or("post_norm_eps", s.post_norm_eps, "of the layer norm before the projection", 0);
  s.ln_eps = config.number_or("ln_eps", s.ln_eps, "of the inner model's layer norm", 0);
  if (s.rope_theta != 0 && s.head_dim % 2 != 0)
    config.refuse("head_dim ", s.head_dim, " is odd, but rope_theta ", s.rope_theta, " rotates pairs");
  if (s.rope_theta < 0) config.refuse("rope_theta ", s.rope_theta, " is negative");
  config.finish();
  return s;
}

std::vector<TensorSpec> ttt_linear_tensors(const TttLinearSettings& s) {
  const Index inner = s.inner(), f = s.head_dim;
  const char* rows = "[num_heads * head_dim, width]";
  const char* heads = "[num_heads, head_dim]";
  std::vector<TensorSpec> specs = {
      {"q", {inner, s.width}, Init::normal, rows, true},
      {"v", {inner, s.width}, Init::normal, rows, true},
      {"lr", {s.num_heads, s.width}, Init::normal, "[num_heads, width]", true},
      {"lr_bias", {s.num_heads}, Init::small, "[num_heads]"},
      {"token_idx", {s.mini_batch}, Init::small, "[mini_batch]"},
      {"w0", {s.num_heads, f, f}, Init::small, "[num_heads, head_dim, head_dim]"},
      {"b0", {s.num_heads, f}, Init::small, heads},
      {"ln_weight", {s.num_heads, f}, Init::around_one, heads},
      {"ln_bias", {s.num_heads, f}, Init::small, heads},
      {"post_norm_weight", {inner}, Init::around_one, "[num_heads * head_dim]"},
      {"post_norm_bias", {inner}, Init::small, "[num_heads * head_dim]"},
      {"o", {s.width, inner}, Init::normal, "[width, num_heads * head_dim]", true}};
  if (s.conv == 0) specs.push_back({"k", {inner, s.width}, Init::normal, rows, true});
  for (const char* name : {"conv_q", "conv_k"})
    if (s.conv > 0) {
      specs.push_back({name, {inner, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
      specs.push_back({std::string(name) + "_bias", {inner}, Init::small, "[num_heads * head_dim]"});
    }
  add_gate_tensors(s.gate, inner, s.width, "num_heads * head_dim", specs);
  return specs;
}

namespace {

using reference::Rows;

// The primal form: the inner model's weights are carried token by token.
class TttLinearTwin final : public Twin {
 public:
  TttLinearTwin(const TttLinearSettings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    Rows xq = weights_.project("q", x), xk = xq;
    if (s_.conv > 0) {
      xk = weights_.convolve("conv_k", xq, weights_["conv_k_bias"]);
      xq = weights_.convolve("conv_q", xq, weights_["conv_q_bias"]);
    } else {
      xk = weights_.project("k", x);
    }
    rotate(xq);
    rotate(xk);
    const Rows xv = weights_.project("v", x);
    Rows lr = weights_.project("lr", x);
    for (Index t = 0; t < lr.rows; ++t)
      for (Index h = 0; h < lr.cols; ++h)
        lr(t, h) = s_.base_lr * reference::sigmoid(lr(t, h) + weights_.at("lr_bias", h)) /
                   static_cast<double>(s_.head_dim);
    Rows out(x.rows, s_.inner());
    for (Index h = 0; h < s_.num_heads; ++h) run_head(h, xq, xk, xv, lr, out);

    reference::layer_normalise(out, s_.inner(), s_.post_norm_eps, weights_["post_norm_weight"],
                               weights_["post_norm_bias"]);
    reference::apply_gate(s_.gate, weights_, x, out);
    const Rows y = weights_.project("o", out.view());
    for (Index t = 0; t < y.rows; ++t) std::copy_n(y.row(t), y.cols, output.row(t));
  }

 private:
  using Vector = std::vector<double>;

  // Pairs (2 i, 2 i + 1) turn by (t mod mini_batch) theta^(-2 i / head_dim).
  void rotate(Rows& x) const {
    const Index f = s_.head_dim;
    for (Index t = 0; s_.rope_theta != 0 && t < x.rows; ++t)
      for (Index c = 0; c < x.cols; c += 2) {
        const double frequency =
            std::pow(s_.rope_theta, -static_cast<double>(c % f) / static_cast<double>(f));
        const double angle = static_cast<double>(t % s_.mini_batch) * frequency;
        const double a = x(t, c), b = x(t, c + 1);
        x(t, c) = a * std::cos(angle) - b * std::sin(angle);
        x(t, c + 1) = a * std::sin(angle) + b * std::cos(angle);
      }
  }

  // z = x W + b
  Vector predict(const double* x, const Vector& w, const Vector& b) const {
    const Index f = s_.head_dim;
    Vector z = b;
    for (Index i = 0; i < f; ++i)
      for (Index c = 0; c < f; ++c)
        z[static_cast<std::size_t>(c)] += x[i] * w[static_cast<std::size_t>(i * f + c)];
    return z;
  }
  // (z - mean) / std; returns std.
  double standardise(Vector& z) const {
    const double f = static_cast<double>(s_.head_dim);
    double mean = 0, variance = 0;
    for (double value : z) mean += value / f;
    for (double& value : z) value -= mean;
    for (double value : z) variance += value * value / f;
    const double deviation = std::sqrt(variance + s_.ln_eps);
    for (double& value : z) value /= deviation;
    return deviation;
  }
  // Gradient of 1/2 || LN(z) - (xv - xk) ||^2 with respect to z.
  Vector gradient(Vector z, const double* xk, const double* xv, Index head) const {
    const double f = static_cast<double>(s_.head_dim);
    const double deviation = standardise(z);
    Vector g(z.size());
    double sum = 0, product = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
      const Index channel = head * s_.head_dim + static_cast<Index>(i);
      const double gamma = weights_.at("ln_weight", channel), beta = weights_.at("ln_bias", channel);
      g[i] = (gamma * z[i] + beta - (xv[i] - xk[i])) * gamma;
      sum += g[i];
      product += g[i] * z[i];
    }
    for (std::size_t i = 0; i < z.size(); ++i) g[i] = (f * g[i] - sum - z[i] * product) / (f * deviation);
    return g;
  }

  void run_head(Index h, const Rows& xq, const Rows& xk, const Rows& xv, const Rows& lr, Rows& out) const {
    const Index f = s_.head_dim, m = s_.mini_batch;
    const auto slice = [&](const char* name, Index size) {
      const Vector& all = weights_[name];
      return Vector(all.begin() + h * size, all.begin() + (h + 1) * size);
    };
    Vector w = slice("w0", f * f), b = slice("b0", f), w_now = w, b_now = b;
    Vector sum_w(w.size()), sum_b(b.size());
    for (Index t = 0; t < xq.rows; ++t) {
      const double *q = xq.row(t) + h * f, *k = xk.row(t) + h * f, *v = xv.row(t) + h * f;
      const double token =
          std::max(1 / static_cast<double>(t % m + 1) + weights_.at("token_idx", t % m), 0.0);
      const Vector g = gradient(predict(k, w, b), k, v, h);
      for (Index c = 0; c < f; ++c) {
        const double step = lr(t, h) * g[static_cast<std::size_t>(c)];
        sum_b[static_cast<std::size_t>(c)] += step;
        for (Index i = 0; i < f; ++i) sum_w[static_cast<std::size_t>(i * f + c)] += step * k[i];
      }
      for (std::size_t i = 0; i < w.size(); ++i) w_now[i] = w[i] - token * sum_w[i];
      for (std::size_t i = 0; i < b.size(); ++i) b_now[i] = b[i] - token * sum_b[i];
      Vector z = predict(q, w_now, b_now);
      standardise(z);
      for (Index c = 0; c < f; ++c)
        out(t, h * f + c) = q[c] + weights_.at("ln_weight", h * f + c) * z[static_cast<std::size_t>(c)] +
                            weights_.at("ln_bias", h * f + c);
      if (t % m + 1 < m) continue;
      w = w_now;
      b = b_now;
      std::fill(sum_w.begin(), sum_w.end(), 0.0);
      std::fill(sum_b.begin(), sum_b.end(), 0.0);
    }
  }

  TttLinearSettings s_;
  reference::Weights weights_;
};

}  // namespace

std::shared_ptr<Twin> make_ttt_linear_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<TttLinearTwin>(read_ttt_linear(config), parameters);
}

}  // namespace plait
