#include "layers/reference/polysketch_attention.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/recurrence.h"

namespace plait {

using Settings = PolysketchAttentionSettings;

PolynomialAttentionSettings PolysketchAttentionSettings::core() const {
  PolynomialAttentionSettings s;
  s.projection = projection;
  s.degree = 4;
  s.denominator = PolynomialAttentionSettings::Denominator::one_plus_sum;
  s.logit_scale = 1;
  s.grid = block;
  if (sketch == Sketch::none) return s;
  s.projection.head_dim = size;
  s.degree = 2;
  if (rescale) s.logit_scale = static_cast<double>(size);
  if (mixed) s.near_dim = projection.head_dim;
  return s;
}

PolysketchAttentionSettings read_polysketch_attention(Config& config) {
  Settings s;
  s.projection = read_projection(config);
  if (s.projection.qk_norm)
    config.refuse("qk_norm is set, but the kind norms behind rope, with tensors of its own");
  s.sketch = static_cast<Settings::Sketch>(config.choice(
      "sketch", {"random", "learned", "none"},
      "of queries and keys: products of random projections, networks, or the exact power; that all "
      "heads share them is UNCONFIRMED"));
  s.block = config.integer_or("block", 0,
                              "tokens of a block, kept as they are until it ends; 0 = the card's chunk");
  if (s.sketch != Settings::Sketch::none) {
    s.size = config.integer_or("r", s.size, "columns of a sketched query or key head", 1);
    s.mixed = config.boolean_or("mixed", false, "keys of a row's own block weigh (q.k)^4, exactly");
  }
  if (s.sketch == Settings::Sketch::random)
    s.rescale = config.boolean_or("sketch_rescale", false,
                                  "multiplies sketched weights by r^2, so that they estimate (q.k)^4");
  config.finish();
  return s;
}

std::vector<TensorSpec> polysketch_attention_tensors(const Settings& s) {
  const ProjectionSettings& p = s.projection;
  std::vector<TensorSpec> specs = projection_tensors(p);
  specs.push_back({"o",
                   {p.width, p.num_heads * p.value_head_dim},
                   Init::normal,
                   "[width, num_heads * value_head_dim]",
                   true});
  const auto norm = [&](const std::string& name, Index columns, const char* text) {
    specs.push_back({name, {columns}, Init::around_one, text});
    specs.push_back({name + "_bias", {columns}, Init::small, text});
  };
  if (s.shared_norm()) norm("qk_norm", p.head_dim, "[head_dim]");
  if (s.separate_norms()) {
    norm("q_norm", p.head_dim, "[head_dim]");
    norm("k_norm", p.head_dim, "[head_dim]");
  }
  if (s.sketch == Settings::Sketch::random)
    for (const char* name : {"g1", "g2"})
      specs.push_back({name, {s.size, p.head_dim}, Init::unit_normal, "[r, head_dim]"});
  if (s.sketch == Settings::Sketch::learned)
    for (const std::string branch : {"branch1", "branch2"})
      for (const std::string level : {"_1", "_2"}) {
        const Index in = level == "_1" ? p.head_dim : s.size;
        const std::string text = level == "_1" ? "head_dim" : "r";
        norm(branch + "_norm" + level, in, level == "_1" ? "[head_dim]" : "[r]");
        specs.push_back(
            {branch + "_up" + level, {8 * s.size, in}, Init::normal, "[8 r, " + text + "]", true});
        specs.push_back({branch + "_down" + level, {s.size, 8 * s.size}, Init::normal, "[r, 8 r]", true});
      }
  return specs;
}

namespace {

using reference::Rows;

class PolysketchAttentionTwin final : public Twin {
 public:
  PolysketchAttentionTwin(const Settings& settings, const Grids& grids, const Parameters& parameters)
      : s_(settings),
        block_(settings.block > 0 ? settings.block : grids.chunk),
        projection_(settings.projection, parameters),
        weights_(parameters) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const ProjectionSettings& p = s_.projection;
    const View<const double> x = inputs[0];
    const ProjectionTwin::Rows rows = projection_.run(x);
    Rows q(x.rows, p.num_heads * p.head_dim), k(x.rows, p.num_kv_heads * p.head_dim);
    q.data = rows.q;
    k.data = rows.k;
    const Rows raw_q = q, raw_k = k;
    if (s_.shared_norm()) {
      normalise(q, "qk_norm");
      normalise(k, "qk_norm");
    }
    if (s_.separate_norms()) {
      normalise(q, "q_norm");
      normalise(k, "k_norm");
    }
    const bool learned = s_.sketch == Settings::Sketch::learned;
    const Rows sketched_q = sketch(learned ? raw_q : q), sketched_k = sketch(learned ? raw_k : k);
    Rows o(x.rows, p.num_heads * p.value_head_dim);
    for (Index i = 0; i < x.rows; ++i)
      for (Index h = 0; h < p.num_heads; ++h) {
        const Index kv = h / p.group(), dv = p.value_head_dim;
        double* out = o.row(i) + h * dv;
        double sum = 0;
        for (Index j = 0; j <= i; ++j) {
          const bool exact = s_.sketch == Settings::Sketch::none || (s_.mixed && i / block_ == j / block_);
          const double weight = exact
                                    ? std::pow(dot(q, i, h, k, j, kv, p.head_dim), 4)
                                    : std::pow(dot(sketched_q, i, h, sketched_k, j, kv, s_.size), 2) * undo();
          sum += weight;
          for (Index c = 0; c < dv; ++c)
            out[c] += weight * rows.v[static_cast<std::size_t>((j * p.num_kv_heads + kv) * dv + c)];
        }
        for (Index c = 0; c < dv; ++c) out[c] /= 1 + sum;
      }
    const Rows y = weights_.project("o", o.view());
    for (Index i = 0; i < y.rows; ++i) std::copy_n(y.row(i), y.cols, output.row(i));
  }

 private:
  double undo() const { return s_.rescale ? static_cast<double>(s_.size * s_.size) : 1; }

  static double dot(const Rows& q, Index i, Index h, const Rows& k, Index j, Index kv, Index width) {
    double sum = 0;
    for (Index c = 0; c < width; ++c) sum += q(i, h * width + c) * k(j, kv * width + c);
    return sum;
  }

  void normalise(Rows& x, const std::string& name) const {
    const std::vector<double>&gain = weights_[name], &bias = weights_[name + "_bias"];
    reference::layer_normalise(x, static_cast<Index>(gain.size()), 1e-5, gain, bias);
  }

  // Heads [rows, heads * head_dim] -> [rows, heads * r]
  Rows sketch(const Rows& x) const {
    if (s_.sketch == Settings::Sketch::none) return x;
    const Index d = s_.projection.head_dim, heads = x.cols / d;
    Rows head(x.rows * heads, d), y(x.rows, heads * s_.size);
    head.data = x.data;
    const auto r = static_cast<double>(s_.size);
    if (s_.sketch == Settings::Sketch::random) {
      const Rows a = weights_.project("g1", head.view()), b = weights_.project("g2", head.view());
      for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] = a.data[i] * b.data[i] / r;
      return y;
    }
    const Rows a = branch(head, "branch1"), b = branch(head, "branch2");
    for (std::size_t i = 0; i < y.data.size(); ++i)
      y.data[i] = std::tanh(a.data[i] * b.data[i] / std::sqrt(r)) * std::sqrt(r);
    return y;
  }

  Rows branch(Rows x, const std::string& name) const {
    for (const std::string level : {"_1", "_2"}) {
      normalise(x, name + "_norm" + level);
      Rows wide = weights_.project(name + "_up" + level, x.view());
      reference::map(wide, reference::gelu_tanh);
      x = weights_.project(name + "_down" + level, wide.view());
    }
    return x;
  }

  Settings s_;
  Index block_;
  ProjectionTwin projection_;
  reference::Weights weights_;
};

}  // namespace

std::shared_ptr<Twin> make_polysketch_attention_twin(Config& config, const Parameters& parameters) {
  const Settings settings = read_polysketch_attention(config);
  return std::make_shared<PolysketchAttentionTwin>(settings, config.surroundings().grids, parameters);
}

}  // namespace plait
