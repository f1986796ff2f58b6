#include "layers/reference/projection.h"

#include <cmath>

#include "layers/reference/dense.h"
#include "runtime/base/half.h"

namespace plait {

ProjectionSettings read_heads(Config& config) {
  ProjectionSettings s;
  s.width = config.width();
  s.num_heads = config.integer("num_heads", "query heads");
  s.num_kv_heads = config.integer_or("num_kv_heads", s.num_heads,
                                     "key and value heads, each shared by a group of query heads", 1);
  if (s.num_heads % s.num_kv_heads != 0)
    config.refuse("num_heads is ", s.num_heads, ", which is not a multiple of num_kv_heads, ",
                  s.num_kv_heads);
  s.head_dim = config.integer("head_dim", "columns of a query or key head");
  s.value_head_dim = config.integer_or("value_head_dim", s.head_dim, "columns of a value head", 1);
  return s;
}

std::optional<QkNormSettings> read_qk_norm(Config& config) {
  Config* norm = config.object("qk_norm", "root-mean-square norm of every query and key head, before rope");
  if (!norm) return std::nullopt;
  QkNormSettings s;
  s.eps = norm->number_or("eps", s.eps, "added to the mean square");
  s.form = static_cast<QkNormSettings::Form>(norm->choice("form", {"plain", "one_plus"}, "gain w or 1 + w"));
  s.per_head = norm->choice("gains", {"shared", "per_head"},
                            "one vector of gains for all heads, or one per head") == 1;
  return s;
}

ProjectionSettings read_projection(Config& config) {
  ProjectionSettings s = read_heads(config);
  s.rope = read_rope(config, s.head_dim);
  s.qk_norm = read_qk_norm(config);
  return s;
}

DType read_cache(Config& config) {
  constexpr DType types[] = {DType::f32, DType::f16, DType::bf16};
  return types[config.choice("cache", {"f32", "f16", "bf16"},
                             "what cached keys and values are rounded to, once, to nearest even")];
}

void round_cached(DType cache, std::vector<double>& values) {
  if (cache == DType::f32) return;
  for (double& value : values) {
    const auto single = static_cast<float>(value);
    value = cache == DType::f16 ? to_float(to_f16(single)) : to_float(to_bf16(single));
  }
}

std::vector<TensorSpec> projection_tensors(const ProjectionSettings& s) {
  const Index q = s.query_rows(), k = s.num_kv_heads * s.head_dim, v = s.num_value_heads() * s.value_head_dim;
  const std::string q_text = s.packed_gate == 0 ? "num_heads * head_dim" : "num_heads * (head_dim + gate)";
  const std::string v_text =
      s.keys_per_value == 1 ? "num_kv_heads * value_head_dim" : "num_kv_heads / 2 * value_head_dim";
  std::vector<TensorSpec> specs = {
      {"q", {q, s.width}, Init::normal, "[" + q_text + ", width]", true},
      {"k", {k, s.width}, Init::normal, "[num_kv_heads * head_dim, width]", true},
      {"v", {v, s.width}, Init::normal, "[" + v_text + ", width]", true},
  };
  if (s.qk_norm) {
    const Init init = s.qk_norm->form == QkNormSettings::Form::plain ? Init::around_one : Init::small;
    if (s.qk_norm->per_head) {
      specs.push_back({"q_norm", {s.num_heads * s.head_dim}, init, "[num_heads * head_dim]"});
      specs.push_back({"k_norm", {s.num_kv_heads * s.head_dim}, init, "[num_kv_heads * head_dim]"});
    } else {
      specs.push_back({"q_norm", {s.head_dim}, init, "[head_dim]"});
      specs.push_back({"k_norm", {s.head_dim}, init, "[head_dim]"});
    }
  }
  if (s.bias) {
    specs.push_back({"q_bias", {q}, Init::small, "[" + q_text + "]"});
    specs.push_back({"k_bias", {k}, Init::small, "[num_kv_heads * head_dim]"});
    specs.push_back({"v_bias", {v}, Init::small, "[" + v_text + "]"});
  }
  if (s.shift) {
    specs.push_back({"k_shift", {s.num_kv_heads, s.width}, Init::normal, "[num_kv_heads, width]", true});
    specs.push_back({"v_shift", {s.num_value_heads(), s.width}, Init::normal, "[value heads, width]", true});
  }
  return specs;
}

std::vector<double> project(View<const double> x, const std::vector<double>& weight,
                            const std::vector<double>& bias, Index out) {
  std::vector<double> y(static_cast<std::size_t>(x.rows * out));
  dense_product(x, weight, {y.data(), x.rows, out});
  if (!bias.empty())
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += bias[i % static_cast<std::size_t>(out)];
  return y;
}

std::vector<double> optional_tensor(const Parameters& parameters, const std::string& name) {
  return parameters.has(name) ? to_double(parameters.tensor(name)) : std::vector<double>();
}

void rotate_heads(const ProjectionSettings& s, Index tokens, Index heads, std::vector<double>& rows) {
  if (!s.rope) return;
  const Index slice = s.head_dim / s.rope_slices, slices = heads * s.rope_slices;
  for (Index t = 0; t < tokens; ++t)
    for (Index i = 0; i < slices; ++i)
      rotate_head(*s.rope, static_cast<double>(t), rows.data() + (t * slices + i) * slice);
}

ProjectionTwin::ProjectionTwin(const ProjectionSettings& settings, const Parameters& parameters)
    : settings_(settings),
      q_(to_double(parameters.tensor("q"))),
      k_(to_double(parameters.tensor("k"))),
      v_(to_double(parameters.tensor("v"))) {
  if (settings.bias) {
    q_bias_ = to_double(parameters.tensor("q_bias"));
    k_bias_ = to_double(parameters.tensor("k_bias"));
    v_bias_ = to_double(parameters.tensor("v_bias"));
  }
  if (settings.qk_norm) {
    q_norm_ = to_double(parameters.tensor("q_norm"));
    k_norm_ = to_double(parameters.tensor("k_norm"));
  }
  if (settings.shift) {
    k_shift_ = to_double(parameters.tensor("k_shift"));
    v_shift_ = to_double(parameters.tensor("v_shift"));
  }
}

ProjectionTwin::Rows ProjectionTwin::run(View<const double> input) const {
  const ProjectionSettings& s = settings_;
  std::vector<double> scaled;
  for (Index t = 0; t < input.rows; ++t)
    for (Index c = 0; c < input.cols; ++c) scaled.push_back(s.input_multiplier * input(t, c));
  const View<const double> x(scaled.data(), input.rows, input.cols);
  Rows rows;
  const std::vector<double> packed = project(x, q_, q_bias_, s.query_rows());
  const Index queries = s.packed_heads() * s.head_dim, gates = s.packed_heads() * s.packed_gate;
  for (auto at = packed.begin(); at != packed.end(); at += queries + gates) {
    rows.q.insert(rows.q.end(), at, at + queries);
    rows.gate.insert(rows.gate.end(), at + queries, at + queries + gates);
  }
  rows.k = project(x, k_, k_bias_, s.num_kv_heads * s.head_dim);
  for (double& k : rows.k) k *= s.key_multiplier;
  rows.v = project(x, v_, v_bias_, s.num_value_heads() * s.value_head_dim);
  if (s.shift) {
    shift(x, k_shift_, s.num_kv_heads, rows.k);
    shift(x, v_shift_, s.num_value_heads(), rows.v);
  }
  norm_and_rotate(rows.q, x.rows, s.num_heads, q_norm_);
  norm_and_rotate(rows.k, x.rows, s.num_kv_heads, k_norm_);
  return rows;
}

void ProjectionTwin::shift(View<const double> x, const std::vector<double>& gate, Index heads,
                           std::vector<double>& rows) const {
  const std::vector<double> logits = project(x, gate, {}, heads), raw = rows;
  const std::size_t columns = rows.size() / static_cast<std::size_t>(x.rows),
                    width = columns / static_cast<std::size_t>(heads);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double a = 1 / (1 + std::exp(-logits[i / width]));
    rows[i] = a * (i < columns ? 0 : raw[i - columns]) + (1 - a) * raw[i];
  }
}

void ProjectionTwin::norm_and_rotate(std::vector<double>& rows, Index tokens, Index heads,
                                     const std::vector<double>& gain) const {
  const Index d = settings_.head_dim;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      double* x = rows.data() + (t * heads + h) * d;
      if (settings_.qk_norm) {
        double squares = 0;
        for (Index c = 0; c < d; ++c) squares += x[c] * x[c];
        const double factor = 1 / std::sqrt(squares / static_cast<double>(d) + settings_.qk_norm->eps);
        const double shift = settings_.qk_norm->form == QkNormSettings::Form::one_plus ? 1 : 0;
        const double* w = gain.data() + (settings_.qk_norm->per_head ? h * d : 0);
        for (Index c = 0; c < d; ++c) x[c] *= factor * (shift + w[c]);
      }
    }
  rotate_heads(settings_, tokens, heads, rows);
}

}  // namespace plait
