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
  Config* norm = config.object("qk_norm", "norm of every query and key head, before rope");
  if (!norm) return std::nullopt;
  QkNormSettings s;
  s.type = static_cast<QkNormSettings::Type>(
      norm->choice("type", {"rms", "layer"}, "root-mean-square norm or layer norm"));
  const bool layer = s.type == QkNormSettings::Type::layer;
  s.eps = norm->number_or("eps", layer ? 1e-5 : 1e-6,
                          "added to the mean square (1e-6) or the variance of a layer norm (1e-5)", 0);
  s.form = static_cast<QkNormSettings::Form>(norm->choice("form", {"plain", "one_plus"}, "gain w or 1 + w"));
  s.per_head = norm->choice("gains", {"shared", "per_head"},
                            "one vector of gains for all heads, or one per head") == 1;
  s.bias = norm->boolean_or("bias", layer, "of a layer norm, which has one unless this is false");
  if (s.bias && !layer) norm->refuse("bias is true, but a root-mean-square norm has none");
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

namespace {

// In place of q and k; empty where they are plain.
std::vector<TensorSpec> structure_tensors(const ProjectionSettings& s) {
  std::vector<TensorSpec> specs;
  if (const auto* levels = std::get_if<MultiLevelQk>(&s.structure))
    for (std::size_t l = 0; l < levels->ranks.size(); ++l) {
      const Index blocks = Index{1} << l, rank = levels->ranks[l];
      if (rank == 0) continue;
      const std::string number = std::to_string(l);
      specs.push_back({"q_" + number,
                       {blocks, s.num_heads * rank, s.width / blocks},
                       Init::normal,
                       "[blocks, num_heads * rank, width / blocks]"});
      specs.push_back({"k_" + number,
                       {blocks, s.num_kv_heads * rank, s.width / blocks},
                       Init::normal,
                       "[blocks, num_kv_heads * rank, width / blocks]"});
    }
  if (const auto* train = std::get_if<BlockTrainKeys>(&s.structure)) {
    const Index heads = s.num_heads * train->b;
    specs.push_back(
        {"btt_k", {train->a, heads * train->rank, train->b}, Init::normal, "[a, num_heads * b * rank, b]"});
    specs.push_back(
        {"btt_q", {heads, train->a, train->a * train->rank}, Init::normal, "[num_heads * b, a, a * rank]"});
  }
  return specs;
}

}  // namespace

std::vector<TensorSpec> projection_tensors(const ProjectionSettings& s) {
  const Index q = s.query_rows(), k = s.num_kv_heads * s.head_dim, v = s.num_value_heads() * s.value_head_dim;
  const std::string q_text = s.packed_gate == 0 ? "num_heads * head_dim" : "num_heads * (head_dim + gate)";
  const std::string v_text =
      s.keys_per_value == 1 ? "num_kv_heads * value_head_dim" : "num_kv_heads / 2 * value_head_dim";
  std::vector<TensorSpec> specs = structure_tensors(s);
  if (specs.empty()) {
    specs.push_back({"q", {q, s.width}, Init::normal, "[" + q_text + ", width]", true});
    specs.push_back({"k", {k, s.width}, Init::normal, "[num_kv_heads * head_dim, width]", true});
  }
  specs.push_back({"v", {v, s.width}, Init::normal, "[" + v_text + ", width]", true});
  const auto add = [&](const std::vector<TensorSpec>& more) {
    specs.insert(specs.end(), more.begin(), more.end());
  };
  if (!s.queries_are_inputs()) add(norm_tensors(s, "q", s.num_heads, "[num_heads * head_dim]"));
  add(norm_tensors(s, "k", s.num_kv_heads, "[num_kv_heads * head_dim]"));
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

std::vector<TensorSpec> norm_tensors(const ProjectionSettings& s, const std::string& name, Index heads,
                                     const char* all) {
  if (!s.qk_norm) return {};
  const Init init = s.qk_norm->form == QkNormSettings::Form::plain ? Init::around_one : Init::small;
  const Index columns = s.qk_norm->per_head ? heads * s.head_dim : s.head_dim;
  const char* text = s.qk_norm->per_head ? all : "[columns of a key head]";
  std::vector<TensorSpec> specs = {{name + "_norm", {columns}, init, text}};
  if (s.qk_norm->bias) specs.push_back({name + "_norm_bias", {columns}, Init::small, text});
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

namespace {

void rotate_heads(const ProjectionSettings& s, Index tokens, Index heads, std::vector<double>& rows) {
  if (!s.rope) return;
  const Index slice = s.head_dim / s.rope_slices, slices = heads * s.rope_slices;
  for (Index t = 0; t < tokens; ++t)
    for (Index i = 0; i < slices; ++i)
      rotate_head(*s.rope, static_cast<double>(t), rows.data() + (t * slices + i) * slice);
}

}  // namespace

void norm_and_rotate(const ProjectionSettings& s, Index tokens, Index heads, const std::vector<double>& gain,
                     const std::vector<double>& bias, std::vector<double>& rows) {
  const Index d = s.head_dim;
  const std::vector<Index> whole = {d};
  const std::vector<Index>& groups = s.norm_groups.empty() ? whole : s.norm_groups;
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h) {
      double* x = rows.data() + (t * heads + h) * d;
      Index first = 0;
      for (const Index columns : groups) {
        if (gain.empty()) continue;
        double mean = 0, squares = 0;
        if (s.qk_norm->type == QkNormSettings::Type::layer)
          for (Index c = first; c < first + columns; ++c) mean += x[c] / static_cast<double>(columns);
        for (Index c = first; c < first + columns; ++c) squares += (x[c] - mean) * (x[c] - mean);
        const double factor = 1 / std::sqrt(squares / static_cast<double>(columns) + s.qk_norm->eps);
        const double shift = s.qk_norm->form == QkNormSettings::Form::one_plus ? 1 : 0;
        for (Index c = first; c < first + columns; ++c) {
          const auto at = static_cast<std::size_t>((s.qk_norm->per_head ? h * d : 0) + c);
          x[c] = (x[c] - mean) * factor * (shift + gain[at]) + (bias.empty() ? 0 : bias[at]);
        }
        first += columns;
      }
    }
  rotate_heads(s, tokens, heads, rows);
}

ProjectionTwin::ProjectionTwin(const ProjectionSettings& settings, const Parameters& parameters)
    : settings_(settings),
      q_(optional_tensor(parameters, "q")),
      k_(optional_tensor(parameters, "k")),
      v_(to_double(parameters.tensor("v"))) {
  for (const TensorSpec& spec : structure_tensors(settings))
    blocks_[spec.name] = to_double(parameters.tensor(spec.name));
  if (settings.bias) {
    q_bias_ = to_double(parameters.tensor("q_bias"));
    k_bias_ = to_double(parameters.tensor("k_bias"));
    v_bias_ = to_double(parameters.tensor("v_bias"));
  }
  if (settings.qk_norm) {
    q_norm_ = optional_tensor(parameters, "q_norm");
    k_norm_ = to_double(parameters.tensor("k_norm"));
    q_norm_bias_ = optional_tensor(parameters, "q_norm_bias");
    k_norm_bias_ = optional_tensor(parameters, "k_norm_bias");
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
  const bool plain = blocks_.empty();
  const std::vector<double> packed =
      plain ? project(x, q_, q_bias_, s.query_rows()) : structured(x, "q", s.num_heads);
  const Index queries = s.packed_heads() * s.head_dim, gates = s.packed_heads() * s.packed_gate;
  for (auto at = packed.begin(); at != packed.end(); at += queries + gates) {
    rows.q.insert(rows.q.end(), at, at + queries);
    rows.gate.insert(rows.gate.end(), at + queries, at + queries + gates);
  }
  rows.k = plain ? project(x, k_, k_bias_, s.num_kv_heads * s.head_dim) : structured(x, "k", s.num_kv_heads);
  for (double& k : rows.k) k *= s.key_multiplier;
  rows.v = project(x, v_, v_bias_, s.num_value_heads() * s.value_head_dim);
  if (s.shift) {
    shift(x, k_shift_, s.num_kv_heads, rows.k);
    shift(x, v_shift_, s.num_value_heads(), rows.v);
  }
  norm_and_rotate(s, x.rows, s.num_heads, q_norm_, q_norm_bias_, rows.q);
  norm_and_rotate(s, x.rows, s.num_kv_heads, k_norm_, k_norm_bias_, rows.k);
  if (!s.query_factors.empty())
    for (std::size_t i = 0; i < rows.q.size(); ++i) rows.q[i] *= s.query_factors[i % s.query_factors.size()];
  return rows;
}

std::vector<double> ProjectionTwin::structured(View<const double> x, const std::string& name,
                                               Index heads) const {
  const Index d = settings_.head_dim;
  std::vector<double> rows(static_cast<std::size_t>(x.rows * heads * d));
  const auto at = [&](Index t, Index h, Index c) -> double& {
    return rows[static_cast<std::size_t>((t * heads + h) * d + c)];
  };
  if (const auto* train = std::get_if<BlockTrainKeys>(&settings_.structure)) {
    const Index a = train->a, b = train->b, ranks = train->rank;
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < heads; ++h) {
        if (name == "q") {
          for (Index c = 0; c < d; ++c) at(t, h, c) = x(t, c);
          continue;
        }
        const std::vector<double>&wk = blocks_.at("btt_k"), &wq = blocks_.at("btt_q");
        for (Index beta = 0; beta < b; ++beta)
          for (Index block = 0; block < a; ++block)
            for (Index r = 0; r < ranks; ++r) {
              double u = 0;
              for (Index c = 0; c < b; ++c)
                u += x(t, block * b + c) * wk[static_cast<std::size_t>(
                                               ((block * heads + h) * b * ranks + beta * ranks + r) * b + c)];
              for (Index alpha = 0; alpha < a; ++alpha)
                at(t, h, alpha * b + beta) +=
                    u * wq[static_cast<std::size_t>((((h * b + beta) * a + alpha) * a + block) * ranks + r)];
            }
      }
    return rows;
  }
  const std::vector<Index>& ranks = std::get<MultiLevelQk>(settings_.structure).ranks;
  Index first = 0;
  for (std::size_t l = 0; l < ranks.size(); ++l) {
    if (ranks[l] == 0) continue;
    const Index blocks = Index{1} << l, rank = ranks[l], width = x.cols / blocks;
    const std::vector<double>& w = blocks_.at(name + "_" + std::to_string(l));
    for (Index t = 0; t < x.rows; ++t)
      for (Index h = 0; h < heads; ++h)
        for (Index block = 0; block < blocks; ++block)
          for (Index r = 0; r < rank; ++r)
            for (Index c = 0; c < width; ++c)
              at(t, h, first + r * blocks + block) +=
                  w[static_cast<std::size_t>(((block * heads + h) * rank + r) * width + c)] *
                  x(t, block * width + c);
    first += blocks * rank;
  }
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

}  // namespace plait
