#include "runtime/run/recording.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/run/batch.h"
#include "runtime/run/encoder.h"

namespace plait {
namespace {

double norm_of(const float* row, Index width) {
  double squares = 0;
  for (Index c = 0; c < width; ++c) squares += static_cast<double>(row[c]) * row[c];
  return std::sqrt(squares);
}

bool contains(const std::vector<Site>& sites, Site site) {
  return std::find(sites.begin(), sites.end(), site) != sites.end();
}

// Sums, and keeps where that is asked for, what a node's inner sites hold.
class InnerSums final : public InnerWatch {
 public:
  explicit InnerSums(const RecordRequest& request) : request_(request) {}

  void see(Site site, View<const float> values) override {
    if (contains(request_.inner_rows, site))
      for (Index r = 0; r < values.rows; ++r)
        rows_[site].insert(rows_[site].end(), values.row(r), values.row(r) + values.cols);
    if (!contains(request_.inner, site)) return;
    auto& [count, sums] = seen_[site];
    count += values.rows;
    sums.resize(static_cast<std::size_t>(values.cols));
    for (Index r = 0; r < values.rows; ++r)
      for (Index c = 0; c < values.cols; ++c) sums[static_cast<std::size_t>(c)] += values(r, c);
  }

  std::map<Site, std::vector<double>> means() const {
    std::map<Site, std::vector<double>> all;
    for (const auto& [site, seen] : seen_) {
      all[site] = seen.sums;
      for (double& mean : all[site]) mean /= static_cast<double>(seen.count);
    }
    return all;
  }

  std::map<Site, std::vector<float>> take_rows() { return std::move(rows_); }

 private:
  struct Sums {
    Index count = 0;
    std::vector<double> sums;  // [heads * channels]
  };
  const RecordRequest& request_;
  std::map<Site, Sums> seen_;
  std::map<Site, std::vector<float>> rows_;
};

bool watches(const RecordRequest& request) { return !request.inner.empty() || !request.inner_rows.empty(); }

// Gathers what the walk shows after every node.
class Recorder {
 public:
  Recorder(const Model& model, const RecordRequest& request) : model_(model), request_(request) {
    for (int n = 0; n < model.graph().output(); ++n) {
      const std::string& name = model.graph().nodes[static_cast<std::size_t>(n)].name;
      const auto& asked = request.nodes;
      if (!asked.empty() && std::find(asked.begin(), asked.end(), name) == asked.end()) continue;
      auto& node = nodes_[n];
      node.mean.assign(static_cast<std::size_t>(model.width(n)), 0.0);
      if (watches(request)) inner_.emplace(n, request);
    }
    for (const std::string& name : request.nodes)
      if (model.graph().find(name) < 0) fail("reference: the model has no node '", name, "'");
  }

  void see(int n, const Ports& ports, std::span<const Segment> segments) {
    const auto found = nodes_.find(n);
    for (const Segment& segment : segments)
      for (Index r = segment.first_row; r < segment.first_row + segment.rows; ++r) {
        if (found != nodes_.end()) add_row(found->second, ports.output.row(r), model_.width(n));
        if (model_.graph().nodes[static_cast<std::size_t>(n)].kind == "add") add_branches(n, ports, r);
      }
  }

  InnerWatch* watch(int n) {
    const auto found = inner_.find(n);
    return found == inner_.end() ? nullptr : &found->second;
  }

  void keep_states(const Sequence& sequence) {
    for (auto& [n, node] : nodes_) {
      if (model_.layer(n).fields().empty()) continue;
      node.position = sequence.position;
      node.state = {sequence.states[static_cast<std::size_t>(n)].image()};
    }
  }

  Recording finish(std::string digest) {
    Recording recording;
    recording.digest = std::move(digest);
    for (auto& [n, node] : nodes_) {
      const auto count = static_cast<double>(std::max<Index>(1, node.count));
      for (double& m : node.mean) m /= count;
      node.norm /= count;
      if (const auto inner = inner_.find(n); inner != inner_.end()) {
        node.inner = inner->second.means();
        node.inner_rows = inner->second.take_rows();
      }
      node.step_norm = node.norm;
      if (const auto branch = branches_.find(n); branch != branches_.end()) {
        node.norm = branch->second.own / count;
        node.step_norm = branch->second.all / count;
      }
      recording.nodes.emplace(model_.graph().nodes[static_cast<std::size_t>(n)].name,
                              std::make_shared<const Recorded>(std::move(node)));
    }
    return recording;
  }

 private:
  void add_row(Recorded& node, const float* row, Index width) const {
    ++node.count;
    for (Index c = 0; c < width; ++c) node.mean[static_cast<std::size_t>(c)] += row[c];
    node.norm += norm_of(row, width);
    if (request_.rows) node.rows.insert(node.rows.end(), row, row + width);
  }

  // Norms of the branches of a step as they enter the residual stream, after their multipliers.
  void add_branches(int n, const Ports& ports, Index r) {
    const Node& node = model_.graph().nodes[static_cast<std::size_t>(n)];
    if (node.inputs.size() < 3) return;
    const auto scales = node.settings.find("scales");
    const Index width = model_.width(n);
    std::vector<float> sum(static_cast<std::size_t>(width), 0), one(sum);
    std::vector<double> norms;
    for (std::size_t i = 1; i < node.inputs.size(); ++i) {
      const float scale = scales == node.settings.end() ? 1.0f : (*scales)[i].get<float>();
      for (Index c = 0; c < width; ++c) {
        one[static_cast<std::size_t>(c)] = scale * ports.inputs[i].row(r)[c];
        sum[static_cast<std::size_t>(c)] += one[static_cast<std::size_t>(c)];
      }
      norms.push_back(norm_of(one.data(), width));
    }
    for (std::size_t i = 1; i < node.inputs.size(); ++i) {
      branches_[node.inputs[i]].own += norms[i - 1];
      branches_[node.inputs[i]].all += norm_of(sum.data(), width);
    }
  }

  struct Norms {
    double own = 0, all = 0;
  };
  const Model& model_;
  const RecordRequest& request_;
  std::map<int, Recorded> nodes_;
  std::map<int, Norms> branches_;
  std::map<int, InnerSums> inner_;
};

}  // namespace

Recording record(const Model& model, std::span<const std::vector<Token>> texts, const RecordRequest& request,
                 const Compute& compute) {
  Recorder recorder(model, request);
  RunOptions options{compute};
  options.observer = [&](int node, const Ports& ports, std::span<const Segment> segments) {
    if (node != model.graph().output()) recorder.see(node, ports, segments);
  };
  if (watches(request)) options.watches = [&](int node) { return recorder.watch(node); };
  Digest digest;
  const std::string knows = model.identity() + arithmetic_digest(model.card(), compute);
  digest.add(knows.data(), knows.size());
  for (const Site site : request.inner) digest.add(name_of(site), std::strlen(name_of(site)));
  for (const Site site : request.inner_rows) digest.add(cat("rows of ", name_of(site)));
  if (!model.card().causal && request.state_at >= 0)
    fail("reference: an encoder keeps no state, its state at ", request.state_at, " was asked for");
  for (std::size_t t = 0; t < texts.size(); ++t) {
    const std::span<const Token> tokens = texts[t];
    const auto length = static_cast<Index>(tokens.size());
    digest.add(&length, sizeof length);
    digest.add(tokens.data(), tokens.size_bytes());
    if (!model.card().causal) {
      encode_batch(model, {&tokens, 1}, options, [](std::size_t, View<const float>) {});
      continue;
    }
    Sequence sequence(model);
    const Index cut = t == 0 && request.state_at >= 0 ? request.state_at : 0;
    if (cut > length)
      fail("reference: the first text has ", length, " tokens, its state at ", cut, " was asked for");
    for (const auto& piece :
         {tokens.first(static_cast<std::size_t>(cut)), tokens.subspan(static_cast<std::size_t>(cut))}) {
      if (t == 0 && sequence.position == cut && request.state_at >= 0) recorder.keep_states(sequence);
      const Item item{&sequence, piece, Want::none};
      run_batch(model, {&item, 1}, options, {});
    }
  }
  return recorder.finish(digest.hex());
}

}  // namespace plait
