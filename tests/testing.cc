#include "tests/testing.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/panel.h"

namespace plait::testing {

namespace {

// The finaliser of SplitMix64: neighbouring inputs give unrelated outputs.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace

Numbers::Numbers(std::uint64_t seed) : state_(mix(seed + 1)) {}

std::uint64_t Numbers::bits() { return mix(state_ += 0x9e3779b97f4a7c15ull); }

double Numbers::uniform(double low, double high) {
  return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53;
}

double Numbers::normal() {
  const double u = uniform(1e-300, 1), v = uniform(0, 1);
  return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
}

std::vector<float> Numbers::normals(Index count, double scale) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(scale * normal());
  return values;
}

std::vector<Token> Numbers::tokens(Index count, Index vocab) {
  std::vector<Token> all(static_cast<std::size_t>(count));
  for (Token& token : all) token = static_cast<Token>(bits() % static_cast<std::uint64_t>(vocab));
  return all;
}

namespace {

double draw(Init init, const Shape& shape, Numbers& numbers) {
  const double fan_in = static_cast<double>(shape.back());
  switch (init) {
    case Init::normal:
      return numbers.normal() / std::sqrt(fan_in);
    case Init::unit_normal:
    case Init::embedding:
      return numbers.normal();
    case Init::zeros:
      return 0;
    case Init::ones:
      return 1;
    case Init::small:
      return 0.2 * numbers.normal();
    case Init::around_one:
      return 1 + 0.1 * numbers.normal();
    case Init::decay_log:
      return std::log(numbers.uniform(1, 16));
    case Init::time_step:
      return std::log(std::expm1(std::exp(numbers.uniform(std::log(1e-3), std::log(1e-1)))));
    case Init::taps:
      return numbers.uniform(-1, 1) / std::sqrt(fan_in);
  }
  return 0;
}

}  // namespace

ModelData random_data(const Json& card, std::uint64_t seed, DType matrices) {
  ModelData data;
  data.origin = "random model";
  data.card = card;
  data.digest = "random " + std::to_string(seed);
  for (const auto& [node, specs] : Model::wanted(expand_card(card, data.origin)))
    for (const TensorSpec& spec : specs) {
      Numbers numbers(seed + std::hash<std::string>()(node + "." + spec.name));
      std::vector<float> values(static_cast<std::size_t>(element_count(spec.shape)));
      for (float& value : values) value = static_cast<float>(draw(spec.init, spec.shape, numbers));
      const Tensor rows = make_tensor(spec.shape, values);
      data.tensors[node][spec.name] = spec.matrix ? pack(rows, matrices) : rows;
    }
  return data;
}

std::shared_ptr<const Model> random_model(const Json& card, std::uint64_t seed, DType matrices) {
  return std::make_shared<const Model>(random_data(card, seed, matrices));
}

Json card_of_kind(const std::string& kind, const Json& settings, const Grids& grids) {
  Json node = settings;
  node["kind"] = kind;
  const auto named = [](Json object, const char* name, std::initializer_list<const char*> inputs) {
    object["name"] = name;
    if (inputs.size() > 0) object["inputs"] = std::vector<std::string>(inputs.begin(), inputs.end());
    return object;
  };
  const Json norm = {{"kind", "rms_norm"}};
  Json graph = Json::array();
  const bool closes = kind == "add" || kind == "normalization_equivariance";
  graph.push_back(named(kind == "embedding" ? node : Json{{"kind", "embedding"}}, "embed", {}));
  graph.push_back(named(norm, "blocks.0.mixer_norm", {"embed"}));
  const bool in_place = kind == "embedding" || kind == "head" || kind == "add";
  graph.push_back(named(in_place ? Json{{"kind", "gated_mlp"}, {"hidden", 48}} : node, "blocks.0.mixer",
                        {"blocks.0.mixer_norm"}));
  graph.push_back(
      named(closes ? node : Json{{"kind", "add"}}, "blocks.0.mixer_add", {"embed", "blocks.0.mixer"}));
  graph.push_back(named(norm, "final_norm", {"blocks.0.mixer_add"}));
  graph.push_back(named(kind == "head" ? node : Json{{"kind", "head"}}, "head", {"final_norm"}));
  Json card = {
      {"plait_format", 1},
      {"name", "one " + kind},
      {"causal", Registry::builtin().find(kind).graphs != Kind::Graphs::encoder},
      {"vocab", 97},
      {"width", 64},
      {"numerics", {{"chunk", grids.chunk}, {"key_block", grids.key_block}, {"key_span", grids.key_span}}},
      {"graph", graph},
      {"groups",
       {{{"name", "blocks.0"},
         {"nodes", {"blocks.0.mixer_norm", "blocks.0.mixer", "blocks.0.mixer_add"}},
         {"residual", "embed"},
         {"output", "blocks.0.mixer_add"},
         {"contributions", {"blocks.0.mixer"}}}}}};
  if (kind == "normalization_equivariance") card.erase("groups");  // of residual steps
  return card;
}

std::vector<float> all_logits(Stream& stream, std::span<const Token> tokens,
                              const std::vector<Index>& split) {
  std::vector<float> all;
  std::size_t done = 0;
  for (std::size_t i = 0; done < tokens.size(); ++i) {
    const auto count = std::min(static_cast<std::size_t>(split[i % split.size()]), tokens.size() - done);
    stream.feed(tokens.subspan(done, count),
                [&](Index, std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); });
    done += count;
  }
  return all;
}

double relative_error(std::span<const double> a, std::span<const double> b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference = std::max(difference, std::abs(a[i] - b[i]));
    size = std::max(size, std::abs(b[i]));
  }
  return size == 0 ? difference : difference / size;
}

}  // namespace plait::testing
