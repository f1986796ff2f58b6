#include "layers/reference/mesa_net.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace plait {
namespace {

constexpr Index kMostSteps = 1024;  // in exact arithmetic head_dim steps solve it

}  // namespace

MesaNetSettings read_mesa_net(Config& config) {
  MesaNetSettings s;
  s.width = config.width();
  s.chunk = config.surroundings().grids.chunk;
  s.num_heads = config.integer("num_heads", "heads");
  s.head_dim = config.integer("head_dim", "width of a query or key head");
  s.value_head_dim = config.integer_or("value_head_dim", s.head_dim, "width of a value head", 1);
  s.conv = config.integer_or("conv", s.conv, "kernel of the short convolution on q and k; 0 = none");
  s.solver = static_cast<MesaNetSettings::Solver>(config.choice(
      "solver", {"cg", "cholesky"}, "conjugate gradient with cg_steps steps, or the exact solution"));
  s.cg_steps = config.integer_or("cg_steps", s.cg_steps, "steps of conjugate gradient");
  if (s.cg_steps > kMostSteps)
    config.refuse("cg_steps is ", s.cg_steps, ", but at most ", kMostSteps, " are computed");
  s.cg_eps = config.number_or("cg_eps", s.cg_eps, "added to the denominators of conjugate gradient", 0);
  s.cg_start = static_cast<MesaNetSettings::Start>(config.choice(
      "cg_start", {"zero", "diagonal"}, "first x: 0, or q over the diagonal, for every row alike"));
  s.cg_tolerance =
      config.number_or("cg_tolerance", s.cg_tolerance,
                       "a row stops at |residual| <= cg_tolerance |q|; 0 = never; UNCONFIRMED", 0);
  s.lambda_min = config.number_or("lambda_min", s.lambda_min, "added to softplus(lambda)", 0);
  s.gate = read_output_gate(config, {"none", "silu", "sigmoid"});
  s.norm_eps = config.number_or("norm_eps", s.norm_eps, "of the output norm", 0);
  const MesaNetSettings plain;
  if (s.solver == MesaNetSettings::Solver::cholesky &&
      (s.cg_steps != plain.cg_steps || s.cg_eps != plain.cg_eps || s.cg_start != plain.cg_start ||
       s.cg_tolerance != plain.cg_tolerance))
    config.refuse("cg_steps, cg_eps, cg_start and cg_tolerance mean nothing while solver is cholesky");
  config.finish();
  return s;
}

std::vector<TensorSpec> mesa_net_tensors(const MesaNetSettings& s) {
  const Index keys = s.num_heads * s.head_dim, values = s.num_heads * s.value_head_dim;
  const char* key_rows = "[num_heads * head_dim, width]";
  const char* value_rows = "[num_heads * value_head_dim, width]";
  std::vector<TensorSpec> specs = {
      {"q", {keys, s.width}, Init::normal, key_rows, true},
      {"k", {keys, s.width}, Init::normal, key_rows, true},
      {"v", {values, s.width}, Init::normal, value_rows, true},
      {"a", {s.num_heads, s.width}, Init::normal, "[num_heads, width]", true},
      {"a_bias", {s.num_heads}, Init::small, "[num_heads]"},
      {"beta", {s.num_heads, s.width}, Init::normal, "[num_heads, width]", true},
      {"beta_bias", {s.num_heads}, Init::small, "[num_heads]"},
      {"lambda", {keys}, Init::small, "[num_heads * head_dim]"},
      {"norm", {s.value_head_dim}, Init::around_one, "[value_head_dim]"},
      {"o", {s.width, values}, Init::normal, "[width, num_heads * value_head_dim]", true}};
  for (const char* name : {"q_conv", "k_conv"})
    if (s.conv > 0) specs.push_back({name, {keys, s.conv}, Init::taps, "[num_heads * head_dim, conv]"});
  add_gate_tensors(s.gate, values, s.width, "num_heads * value_head_dim", specs);
  return specs;
}

namespace reference {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

Vector apply(const Rows& h, std::span<const double> lambda, const Vector& p) {
  Vector y(p.size());
  for (Index r = 0; r < h.rows; ++r) {
    const auto i = static_cast<std::size_t>(r);
    y[i] = lambda[i] * p[i];
    for (Index c = 0; c < h.cols; ++c) y[i] += h(r, c) * p[static_cast<std::size_t>(c)];
  }
  return y;
}

// s = e^g s + w k v'
void absorb(Rows& s, double decay, double w, const double* k, const double* v) {
  for (Index r = 0; r < s.rows; ++r)
    for (Index c = 0; c < s.cols; ++c) s(r, c) = decay * s(r, c) + w * k[r] * v[c];
}

}  // namespace

// Gauss elimination; a positive definite matrix needs no exchange of rows.
std::vector<double> solve_exactly(const Rows& h, std::span<const double> lambda, std::span<const double> q) {
  Rows a = h;
  Vector x(q.begin(), q.end());
  const Index n = a.rows;
  for (Index i = 0; i < n; ++i) a(i, i) += lambda[static_cast<std::size_t>(i)];
  for (Index i = 0; i < n; ++i)
    for (Index r = i + 1; r < n; ++r) {
      const double factor = a(r, i) / a(i, i);
      for (Index c = i; c < n; ++c) a(r, c) -= factor * a(i, c);
      x[static_cast<std::size_t>(r)] -= factor * x[static_cast<std::size_t>(i)];
    }
  for (Index i = n - 1; i >= 0; --i) {
    double& value = x[static_cast<std::size_t>(i)];
    for (Index c = i + 1; c < n; ++c) value -= a(i, c) * x[static_cast<std::size_t>(c)];
    value /= a(i, i);
  }
  return x;
}

std::vector<double> solve_by_steps(const MesaNetSettings& s, const Rows& h, std::span<const double> lambda,
                                   std::span<const double> q) {
  Vector x(q.size()), r(q.begin(), q.end());
  if (s.cg_start == MesaNetSettings::Start::diagonal) {
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = q[i] / (h(static_cast<Index>(i), static_cast<Index>(i)) + lambda[i] + s.cg_eps);
    const Vector ax = apply(h, lambda, x);
    for (std::size_t i = 0; i < x.size(); ++i) r[i] -= ax[i];
  }
  Vector p = r;
  double delta = dot(r, r);
  const double enough = s.cg_tolerance * s.cg_tolerance * dot({q.begin(), q.end()}, {q.begin(), q.end()});
  for (Index step = 0; step < s.cg_steps && delta > enough; ++step) {
    const Vector ap = apply(h, lambda, p);
    const double alpha = delta / (dot(p, ap) + s.cg_eps);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] += alpha * p[i];
      r[i] -= alpha * ap[i];
    }
    const double now = dot(r, r);
    for (std::size_t i = 0; i < x.size(); ++i) p[i] = r[i] + now / (delta + s.cg_eps) * p[i];
    delta = now;
  }
  return x;
}

Rows mesa_reads(const MesaNetSettings& s, const Rows& q, const Rows& k, const Rows& v, const Rows& g,
                const Rows& beta, std::span<const double> lambda) {
  const Index key = s.head_dim, value = s.value_head_dim;
  Rows o(q.rows, s.num_heads * value);
  for (Index h = 0; h < s.num_heads; ++h) {
    Rows gram(key, key), memory(key, value);
    const auto own = lambda.subspan(static_cast<std::size_t>(h * key), static_cast<std::size_t>(key));
    for (Index t = 0; t < q.rows; ++t) {
      const double decay = std::exp(g(t, h));
      const double* token = k.row(t) + h * key;
      absorb(gram, decay, beta(t, h), token, token);
      absorb(memory, decay, beta(t, h), token, v.row(t) + h * value);
      const std::span<const double> query(q.row(t) + h * key, static_cast<std::size_t>(key));
      const Vector x = s.solver == MesaNetSettings::Solver::cholesky ? solve_exactly(gram, own, query)
                                                                     : solve_by_steps(s, gram, own, query);
      for (Index d = 0; d < key; ++d)
        for (Index c = 0; c < value; ++c)
          o(t, h * value + c) += memory(d, c) * x[static_cast<std::size_t>(d)];
    }
  }
  return o;
}

}  // namespace reference

namespace {

using reference::Rows;

class MesaNetTwin final : public Twin {
 public:
  MesaNetTwin(const MesaNetSettings& settings, const Parameters& parameters)
      : s_(settings), weights_(parameters) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    std::vector<double> lambda = weights_["lambda"];
    for (double& value : lambda) value = reference::softplus(value) + s_.lambda_min;
    Rows o = reference::mesa_reads(s_, feature("q", x), feature("k", x), weights_.project("v", x),
                                   per_head("a", x, reference::log_sigmoid),
                                   per_head("beta", x, reference::sigmoid), lambda);
    reference::rms_normalise(o, s_.value_head_dim, s_.norm_eps, weights_["norm"]);
    reference::apply_gate(s_.gate, weights_, x, o);
    const Rows y = weights_.project("o", o.view());
    for (Index t = 0; t < y.rows; ++t) std::copy_n(y.row(t), y.cols, output.row(t));
  }

 private:
  Rows feature(const std::string& name, View<const double> x) const {
    Rows y = weights_.project(name, x);
    if (s_.conv > 0) y = weights_.convolve(name + "_conv", y);
    reference::map(y, reference::silu);
    reference::l2_normalise(y, s_.head_dim, 1e-6);
    return y;
  }
  Rows per_head(const std::string& name, View<const double> x, double (*f)(double)) const {
    Rows y = weights_.project(name, x);
    for (Index t = 0; t < y.rows; ++t)
      for (Index h = 0; h < y.cols; ++h) y(t, h) = f(y(t, h) + weights_.at(name + "_bias", h));
    return y;
  }

  MesaNetSettings s_;
  reference::Weights weights_;
};

}  // namespace

std::shared_ptr<Twin> make_mesa_net_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<MesaNetTwin>(read_mesa_net(config), parameters);
}

}  // namespace plait
