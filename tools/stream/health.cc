#include "tools/stream/health.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/run/state_matrix.h"

namespace plait::stream {
namespace {

// A decay that bf16 would round to 1 forgets nothing, its counterpart forgets all.
const double kSaturated = std::ldexp(1.0, -9);
constexpr std::array<Index, 3> kHistories = {16, 64, 256};
constexpr double kRounding = 1e-9;                       // of what the C library computes on another machine
constexpr std::string_view kLineBegin = "{\"nodes\":[";  // keys are in alphabetical order

// exp of the entropy of the singular values as shares of their sum; 0 for a matrix of zeros.
double effective_rank(const StateMatrix& matrix) {
  const std::vector<double> singular = singular_values(matrix);
  double sum = 0, entropy = 0;
  for (const double s : singular) sum += s;
  if (sum == 0) return 0;
  if (!std::isfinite(sum)) return std::numeric_limits<double>::quiet_NaN();
  for (const double s : singular)
    if (s > 0) entropy -= s / sum * std::log(s / sum);
  return std::exp(entropy);
}

// Of each head of an anchor [heads, rows, cols], or [heads, panels, rows, 32].
Json effective_ranks(const Shape& shape, const float* values) {
  const bool panels = shape.size() == 4;
  std::vector<float> all(values, values + element_count(shape));
  StateMatrix matrix{all.data(), panels ? shape[2] : shape[1], panels ? shape[1] * shape[3] : shape[2],
                     panels ? StateMatrix::Last::padded : StateMatrix::Last::narrow};
  Json ranks = Json::array();
  for (Index h = 0; h < shape[0]; ++h, matrix.data += matrix.rows * matrix.cols)
    ranks.push_back(effective_rank(matrix));
  return ranks;
}

struct Norm {
  double squares = 0, largest = 0;
  void add(double x) {
    squares += x * x;
    if (std::isnan(x) || std::abs(x) > largest) largest = std::abs(x);  // a NaN stays
  }
};

template <class T>
Norm norm_of(const T* values, Index count) {
  Norm norm;
  for (Index i = 0; i < count; ++i) norm.add(values[i]);
  return norm;
}

double number(double x) { return x; }
double number(float x) { return x; }
double number(bf16 x) { return to_float(x); }
double number(f16 x) { return to_float(x); }

// The newest row of a log.
Norm newest_row(const State& state, Index field) {
  const Log& log = state.log(field);
  const Field& declared = state.fields()[static_cast<std::size_t>(field)];
  Norm norm;
  const auto walk = [&](const auto* page) {
    const Index row = (log.end() - 1) % log.page_rows();
    const bool columns = declared.order == Field::Order::columns;
    for (Index c = 0; page && c < log.width(); ++c)
      norm.add(number(columns ? page[c * log.stride() + row] : page[row * log.stride() + c]));
  };
  const Index newest = log.end() - 1;
  if (newest < 0) return norm;
  switch (declared.dtype) {
    case DType::f64:
      walk(log.page<double>(newest));
      break;
    case DType::f16:
      walk(log.page<f16>(newest));
      break;
    case DType::bf16:
      walk(log.page<bf16>(newest));
      break;
    default:
      walk(log.page<float>(newest));
  }
  return norm;
}

Json field_health(const State& state, Index index) {
  const Field& field = state.fields()[static_cast<std::size_t>(index)];
  Json json = {{"field", field.name}};
  Norm norm;
  if (field.kind == Field::Kind::log) {
    json["rows"] = state.log(index).end();
    norm = newest_row(state, index);
  } else if (field.dtype == DType::f64) {
    norm = norm_of(state.peek<double>(index), field.width());
  } else {
    norm = norm_of(state.peek<float>(index), field.width());
  }
  json["norm"] = std::sqrt(norm.squares);
  json["largest"] = norm.largest;
  const bool matrices = field.kind == Field::Kind::anchor && field.dtype == DType::f32 &&
                        (field.shape.size() == 3 || field.shape.size() == 4);
  if (matrices) json["effective_rank"] = effective_ranks(field.shape, state.peek<float>(index));
  return json;
}

// Counts the log decays that a node shows.
class DecayWatch : public InnerWatch {
 public:
  void see(Site site, View<const float> values) override {
    if (site != Site::decay) return;
    for (Index r = 0; r < values.rows; ++r)
      for (Index c = 0; c < values.cols; ++c) {
        const double decay = std::exp(static_cast<double>(values.row(r)[c]));
        ++count_;
        keeps_all_ += decay >= 1 - kSaturated;
        keeps_nothing_ += decay <= kSaturated;
      }
  }
  Json json() const {
    if (count_ == 0) return nullptr;  // none, or hidden behind an edit
    const auto share = [&](Index n) { return static_cast<double>(n) / static_cast<double>(count_); };
    return {{"keeps_all", share(keeps_all_)}, {"keeps_nothing", share(keeps_nothing_)}};
  }

 private:
  Index count_ = 0, keeps_all_ = 0, keeps_nothing_ = 0;
};

std::vector<double> log_probabilities(std::span<const float> logits) {
  const double greatest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - greatest);
  std::vector<double> all;
  for (const float logit : logits) all.push_back(logit - greatest - std::log(sum));
  return all;
}

double divergence(std::span<const float> a, std::span<const float> b) {
  const std::vector<double> p = log_probabilities(a), q = log_probabilities(b);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i]) * (p[i] - q[i]);
  return std::max(sum, 0.0);
}

// Logits after the last of `tokens`, by a stream that has seen nothing before `from`.
std::vector<float> without_the_past(const Stream& stream, Index from) {
  Sequence sequence(stream.model(), 0, stream.sequence().plan);
  sequence.position = from;
  for (std::size_t n = 0; n < sequence.states.size(); ++n) {
    State& state = sequence.states[n];
    state.set_position(from);
    if (sequence.plan) state.remember(sequence.plan->memory(static_cast<int>(n)));
    if (!state.fields().empty()) state.reset_before(from, State::Logs::hide);
  }
  std::vector<float> logits;
  const Item item{&sequence, stream.history().since(from), Want::last};
  run_batch(stream.model(), {&item, 1}, {stream.options().compute},
            [&](std::size_t, Index, std::span<const float> row) { logits.assign(row.begin(), row.end()); });
  return logits;
}

}  // namespace

Json health_of(const Stream& stream, const Sequence& before, const std::string& stream_sha256) {
  const Model& model = stream.model();
  std::map<int, DecayWatch> decays;
  Sequence replayed = before;
  const Item item{&replayed, stream.history().since(before.position), Want::none};
  RunOptions options{stream.options().compute};
  options.watches = [&](int node) { return &decays[node]; };
  run_batch(model, {&item, 1}, options, {});

  Json json = {{"position", stream.position()},
               {"stream", stream_sha256},
               {"nodes", Json::array()},
               {"remembrance", Json::object()}};
  for (int n = 0; n < model.node_count(); ++n) {
    const State& state = stream.sequence().states[static_cast<std::size_t>(n)];
    if (state.fields().empty()) continue;
    Json node = {{"node", model.graph().nodes[static_cast<std::size_t>(n)].name}, {"fields", Json::array()}};
    for (std::size_t f = 0; f < state.fields().size(); ++f)
      if (state.fields()[f].kind != Field::Kind::open)
        node["fields"].push_back(field_health(state, static_cast<Index>(f)));
    if (const Json share = decays[n].json(); !share.is_null()) node["decays"] = share;
    json["nodes"].push_back(std::move(node));
  }
  for (const Index history : kHistories)
    if (history < stream.position() && stream.position() - history >= stream.history().begin())
      json["remembrance"][std::to_string(history)] =
          divergence(stream.logits(), without_the_past(stream, stream.position() - history));
  return json;
}

bool same_health(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) {
    const double x = a.get<double>(), y = b.get<double>();
    return std::abs(x - y) <= kRounding * std::max(1.0, std::abs(x));
  }
  if (!a.is_structured() || a.type() != b.type() || a.size() != b.size()) return a == b;
  if (a.is_array()) return std::equal(a.begin(), a.end(), b.begin(), same_health);
  return std::all_of(a.items().begin(), a.items().end(), [&](const auto& item) {
    return b.contains(item.key()) && same_health(item.value(), b[item.key()]);
  });
}

std::size_t health_until(std::string_view text, Index position, const std::string& stream_sha256,
                         const std::string& path) {
  const auto refuse = [&] { fail("'", path, "' holds a line that is no health of a stream"); };
  std::size_t kept = 0, end;
  bool ahead = false;
  for (std::size_t begin = 0; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    const Json line = Json::parse(text.substr(begin, end - begin), nullptr, false);
    const auto at = line.is_object() ? line.find("position") : line.end();
    if (at == line.end() || !at->is_number_unsigned() || line.value("stream", Json()) == Json()) refuse();
    if (line["stream"] != stream_sha256)
      fail("'", path,
           "' belongs to another stream: its model, arithmetic, edits or the text before its start differ");
    ahead = ahead || at->get<std::uint64_t>() > static_cast<std::uint64_t>(position);
    if (!ahead) kept = end + 1;
  }
  // What a killed writer leaves is the beginning of a line, or zeros in its place.
  std::string_view torn = text.substr(text.rfind('\n') + 1);
  torn = torn.substr(0, torn.find_last_not_of('\0') + 1);
  if (!torn.starts_with(kLineBegin) && !kLineBegin.starts_with(torn)) refuse();
  return kept;
}

}  // namespace plait::stream
