#include "layers/reference/softmax_free_attention.h"

#include <algorithm>
#include <cmath>

#include "layers/reference/projection.h"

namespace plait {

SoftmaxFreeAttentionSettings read_softmax_free_attention(Config& config) {
  SoftmaxFreeAttentionSettings s;
  s.width = config.width();
  s.num_heads = config.integer("num_heads", "heads");
  s.head_dim = config.integer("head_dim", "columns of a query or value head");
  s.ratio =
      config.integer("ratio", "side of the patches that make landmarks; 1 = no landmarks, the kernel itself");
  s.grid_width = config.integer_or("grid_width", 0, "tokens in a row of the image; 0 = the text is one row");
  s.normalised =
      config.boolean_or("normalised", false, "SOFT++: the inverse is scaled by its kernel's row sums");
  if (s.ratio > 1) {
    s.iterations = config.integer_or("iterations", s.iterations, "of Newton's method for the inverse", 1);
    if (!s.normalised) s.ridge = config.number_or("ridge", s.ridge, "added to the landmarks' kernel", 0);
  }
  s.conv = config.integer_or("conv", 0, "side of the taps that add neighbours' values; 0 = none");
  if (s.conv > 0 && s.conv % 2 == 0)
    config.refuse("conv is ", s.conv, ", but the taps lie around a token; it must be odd");
  s.bias = config.boolean_or("bias", true, "biases on queries, values and output");
  s.eps = config.number_or("eps", s.eps, "added to the variance of a landmark");
  if (!(s.eps > 0)) config.refuse("eps is ", s.eps, ", but must be positive");
  config.finish();
  return s;
}

std::vector<TensorSpec> softmax_free_attention_tensors(const SoftmaxFreeAttentionSettings& s) {
  const Index columns = s.num_heads * s.head_dim;
  std::vector<TensorSpec> specs = {
      {"q", {columns, s.width}, Init::normal, "[num_heads * head_dim, width]", true},
      {"v", {columns, s.width}, Init::normal, "[num_heads * head_dim, width]", true},
      {"landmark",
       {s.head_dim, s.patch_tokens() * s.head_dim},
       Init::normal,
       "[head_dim, tokens of a patch * head_dim]",
       true},
      {"landmark_norm", {s.head_dim}, Init::around_one, "[head_dim]"},
      {"landmark_norm_bias", {s.head_dim}, Init::small, "[head_dim]"},
      {"o", {s.width, columns}, Init::normal, "[width, num_heads * head_dim]", true}};
  if (s.conv > 0)
    specs.push_back({"taps",
                     {s.num_heads, s.conv * s.rows_of(s.conv)},
                     Init::taps,
                     "[num_heads, tokens under the taps]"});
  if (s.bias) {
    specs.push_back({"q_bias", {columns}, Init::small, "[num_heads * head_dim]"});
    specs.push_back({"v_bias", {columns}, Init::small, "[num_heads * head_dim]"});
    specs.push_back({"o_bias", {s.width}, Init::small, "[width]"});
  }
  return specs;
}

namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

// a [n, k] times b [k, m]
std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b, Index n, Index k,
                            Index m) {
  std::vector<double> c(at(n * m));
  for (Index i = 0; i < n; ++i)
    for (Index l = 0; l < k; ++l)
      for (Index j = 0; j < m; ++j) c[at(i * m + j)] += a[at(i * k + l)] * b[at(l * m + j)];
  return c;
}

std::vector<double> transposed(const std::vector<double>& a, Index n, Index m) {
  std::vector<double> b(a.size());
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < m; ++j) b[at(j * n + i)] = a[at(i * m + j)];
  return b;
}

std::vector<double> row_sums(const std::vector<double>& a, Index n) {
  std::vector<double> sums(at(n));
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) sums[at(i)] += a[at(i * n + j)];
  return sums;
}

// Greatest column sum of |I - P V|.
double distance_from_inverse(const std::vector<double>& p, const std::vector<double>& v, Index n) {
  const std::vector<double> pv = product(p, v, n, n, n);
  double most = 0;
  for (Index j = 0; j < n; ++j) {
    double sum = 0;
    for (Index i = 0; i < n; ++i) sum += std::abs((i == j ? 1 : 0) - pv[at(i * n + j)]);
    most = std::max(most, sum);
  }
  return most;
}

}  // namespace

std::vector<double> reference::gaussian_kernel(const std::vector<double>& x, const std::vector<double>& y,
                                               Index d) {
  std::vector<double> kernel;
  for (auto a = x.begin(); a != x.end(); a += d)
    for (auto b = y.begin(); b != y.end(); b += d) {
      double square = 0;
      for (Index c = 0; c < d; ++c) square += (a[c] - b[c]) * (a[c] - b[c]);
      kernel.push_back(std::exp(-square / 2));
    }
  return kernel;
}

std::vector<double> reference::newton_inverse(std::vector<double> a, Index n, double ridge, bool normalised,
                                              Index iterations) {
  const std::vector<double> sums = row_sums(a, n);
  const double most = *std::max_element(sums.begin(), sums.end());
  double alpha = (normalised ? 2 : 1.8) / (most * most);
  std::vector<double>& p = a;
  for (Index i = 0; i < n && !normalised; ++i) p[at(i * n + i)] += ridge;
  const auto started = [&] {
    std::vector<double> v = p;
    for (double& x : v) x *= alpha;
    return v;
  };
  std::vector<double> v = started();
  for (int halved = 0; normalised && halved < 10 && distance_from_inverse(p, v, n) > 1.01; ++halved) {
    alpha /= 2;
    v = started();
  }
  for (Index it = 0; it < iterations; ++it) {
    const std::vector<double> vpv = product(product(v, p, n, n, n), v, n, n, n);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = 2 * v[i] - vpv[i];
  }
  return v;
}

namespace {

class SoftmaxFreeAttentionTwin final : public Twin {
 public:
  SoftmaxFreeAttentionTwin(const SoftmaxFreeAttentionSettings& settings, const Parameters& parameters)
      : s_(settings),
        q_(to_double(parameters.tensor("q"))),
        v_(to_double(parameters.tensor("v"))),
        o_(to_double(parameters.tensor("o"))),
        q_bias_(optional_tensor(parameters, "q_bias")),
        v_bias_(optional_tensor(parameters, "v_bias")),
        o_bias_(optional_tensor(parameters, "o_bias")),
        landmark_(to_double(parameters.tensor("landmark"))),
        gain_(to_double(parameters.tensor("landmark_norm"))),
        shift_(to_double(parameters.tensor("landmark_norm_bias"))),
        taps_(optional_tensor(parameters, "taps")) {}

  void run(std::span<const View<const double>> inputs, std::span<const Token>,
           View<double> output) const override {
    const View<const double> x = inputs[0];
    const Index d = s_.head_dim, columns = s_.num_heads * d, n = x.rows;
    std::vector<double> q = project(x, q_, q_bias_, columns);
    for (double& c : q) c /= std::pow(static_cast<double>(d), 0.25);
    const std::vector<double> v = project(x, v_, v_bias_, columns);
    std::vector<double> heads(at(n * columns));
    for (Index h = 0; h < s_.num_heads; ++h) {
      const std::vector<double> own = head(v, n, h);
      std::vector<double> out = attend(head(q, n, h), own, n);
      if (s_.conv > 0) convolve(own, h, n, out);
      for (Index t = 0; t < n; ++t) std::copy_n(out.begin() + t * d, d, heads.begin() + t * columns + h * d);
    }
    const std::vector<double> y = project({heads.data(), n, columns}, o_, o_bias_, s_.width);
    for (Index t = 0; t < n; ++t) std::copy_n(y.data() + t * s_.width, s_.width, output.row(t));
  }

 private:
  // The head's columns of rows [n, num_heads * head_dim].
  std::vector<double> head(const std::vector<double>& rows, Index n, Index h) const {
    const Index d = s_.head_dim;
    std::vector<double> own;
    for (Index t = 0; t < n; ++t) {
      const auto first = rows.begin() + (t * s_.num_heads + h) * d;
      own.insert(own.end(), first, first + d);
    }
    return own;
  }

  // q [n, head_dim] -> [landmarks, head_dim]
  std::vector<double> landmarks(const std::vector<double>& q, Index n) const {
    const Index d = s_.head_dim, count = s_.landmarks(n), tokens = s_.patch_tokens();
    std::vector<double> patches;
    for (Index a = 0; a < count; ++a)
      for (Index i = 0; i < tokens; ++i) {
        const auto first = q.begin() + s_.patch_token(n, a, i) * d;
        patches.insert(patches.end(), first, first + d);
      }
    std::vector<double> z = project({patches.data(), count, tokens * d}, landmark_, {}, d);
    for (Index a = 0; a < count; ++a) {
      double* row = z.data() + a * d;
      double mean = 0, variance = 0;
      for (Index c = 0; c < d; ++c) mean += row[c] / static_cast<double>(d);
      for (Index c = 0; c < d; ++c) variance += (row[c] - mean) * (row[c] - mean) / static_cast<double>(d);
      for (Index c = 0; c < d; ++c) {
        const double normed = (row[c] - mean) / std::sqrt(variance + s_.eps) * gain_[at(c)] + shift_[at(c)];
        row[c] = normed / 2 * (1 + std::erf(normed / std::sqrt(2.0)));
      }
    }
    return z;
  }

  std::vector<double> attend(const std::vector<double>& q, const std::vector<double>& v, Index n) const {
    const Index d = s_.head_dim, m = s_.landmarks(n);
    const std::vector<double> z = landmarks(q, n);
    if (s_.ratio == 1) return product(reference::gaussian_kernel(z, z, d), v, n, n, d);
    if (m == 0) return std::vector<double>(at(n * d));
    const std::vector<double> a1 = reference::gaussian_kernel(q, z, d),
                              a2 = reference::gaussian_kernel(z, z, d);
    std::vector<double> inverse = reference::newton_inverse(a2, m, s_.ridge, s_.normalised, s_.iterations);
    if (s_.normalised) {
      const std::vector<double> sums = row_sums(a2, m);
      for (Index a = 0; a < m; ++a)
        for (Index b = 0; b < m; ++b) inverse[at(a * m + b)] /= std::sqrt(sums[at(a)] * sums[at(b)]);
    }
    const std::vector<double> gathered = product(transposed(a1, n, m), v, m, n, d);
    return product(a1, product(inverse, gathered, m, m, d), n, m, d);
  }

  // out += the values around each token of the grid, under the head's taps
  void convolve(const std::vector<double>& v, Index h, Index n, std::vector<double>& out) const {
    const Index d = s_.head_dim, columns = s_.columns(n), high = s_.rows_of(s_.conv);
    for (Index t = 0; t < n; ++t)
      for (Index y = 0; y < high; ++y)
        for (Index x = 0; x < s_.conv; ++x) {
          const Index row = t / columns + y - high / 2, column = t % columns + x - s_.conv / 2;
          const Index source = row * columns + column;
          if (row < 0 || column < 0 || column >= columns || source >= n) continue;
          for (Index c = 0; c < d; ++c)
            out[at(t * d + c)] += taps_[at((h * high + y) * s_.conv + x)] * v[at(source * d + c)];
        }
  }

  SoftmaxFreeAttentionSettings s_;
  std::vector<double> q_, v_, o_, q_bias_, v_bias_, o_bias_, landmark_, gain_, shift_, taps_;
};

}  // namespace

std::shared_ptr<Twin> make_softmax_free_attention_twin(Config& config, const Parameters& parameters) {
  return std::make_shared<SoftmaxFreeAttentionTwin>(read_softmax_free_attention(config), parameters);
}

}  // namespace plait
