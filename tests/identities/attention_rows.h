// What the tests of the attention kinds share: one node fed in pieces that carry different edits, and the
// rows a double loop of the test sees.
#pragma once

#include <functional>
#include <vector>

#include "layers/reference/projection.h"
#include "runtime/run/state.h"
#include "tests/identities/tolerance.h"
#include "tests/one_kind.h"

namespace plait::testing {

// Rows [begin, end) of an input; `skip` leaves a hole.
struct EditedRows {
  Index begin, end;
  std::vector<Edit> edits = {};
  bool skip = false;
};

inline Edit inner_edit(Site site, Operator op, std::vector<Index> heads = {}, double value = 0) {
  Edit edit;
  edit.node = "tested";
  edit.site = site;
  edit.op = op;
  edit.heads = std::move(heads);
  edit.value = value;
  return edit;
}

// Feeds consecutive pieces as the executor does; rows of skipped pieces stay 0. [rows, output_width]
inline std::vector<float> run_pieces(const OneKind& kind, const KindInput& input,
                                     const std::vector<EditedRows>& pieces, const Compute& compute = {}) {
  const Layer& layer = kind.layer();
  const Index width = layer.signature().inputs[0], columns = layer.signature().output;
  std::vector<float> output(static_cast<std::size_t>(input.rows * columns));
  State state(layer.fields());
  Context context{compute};
  for (const EditedRows& piece : pieces) {
    if (piece.skip) continue;
    while (state.position() < piece.begin) {
      const Index reached = state.fill_hole(piece.begin);
      if (state.grid() == 0 || reached % state.grid() != 0) continue;
      state.before_fold(reached, piece.begin);
      layer.fold(state, reached, context);
    }
    Edits edits;
    for (const Edit& edit : piece.edits) edits.add(&edit);
    const Index rows = piece.end - piece.begin;
    const View<const float> x(input.inputs[0].data() + piece.begin * width, rows, width);
    Ports ports;
    ports.inputs = {&x, 1};
    ports.output = View<float>(output.data() + piece.begin * columns, rows, columns);
    const Segment segment{&state, piece.begin, 0, rows, edits.empty() ? nullptr : &edits};
    layer.run(ports, {&segment, 1}, context);
    state.advance(piece.end);
  }
  return output;
}

// [size, size]
inline std::vector<float> unit_matrix(Index size) {
  std::vector<float> unit(static_cast<std::size_t>(size * size));
  for (Index i = 0; i < size; ++i) unit[static_cast<std::size_t>(i * size + i)] = 1;
  return unit;
}

// Projected rows in double, for a double loop over heads: q(i, h) [head_dim] and so on.
struct HeadRows {
  ProjectionSettings settings;
  ProjectionTwin::Rows rows;

  const double* q(Index i, Index h) const {
    return rows.q.data() + (i * settings.num_heads + h) * settings.head_dim;
  }
  const double* k(Index j, Index h) const {
    return rows.k.data() + (j * settings.num_kv_heads + h / settings.group()) * settings.head_dim;
  }
  const double* v(Index j, Index h) const {
    return rows.v.data() + (j * settings.num_kv_heads + h / settings.group()) * settings.value_head_dim;
  }
  double dot(Index i, Index j, Index h) const {
    double sum = 0;
    for (Index c = 0; c < settings.head_dim; ++c) sum += q(i, h)[c] * k(j, h)[c];
    return sum;
  }
};

// Settings, parameters and input of one head whose output row i is its row of weights: token j carries e_j
// beside `width` noise columns, of which queries and keys are random combinations, and e_j is its value.
struct WeightProbe {
  WeightProbe(Json json, Index tokens, Index head_dim, Index width, std::uint64_t seed)
      : settings(std::move(json)) {
    settings["num_heads"] = 1;
    settings["head_dim"] = head_dim;
    settings["value_head_dim"] = tokens;
    surroundings.width = width + tokens;
    surroundings.grids = {32, 64, 128};
    Numbers numbers(seed);
    for (const char* name : {"q", "k"}) {
      std::vector<float>& w = values[name];
      w.assign(static_cast<std::size_t>(head_dim * surroundings.width), 0.0f);
      for (Index r = 0; r < head_dim; ++r)
        for (Index c = 0; c < width; ++c)
          w[static_cast<std::size_t>(r * surroundings.width + c)] =
              static_cast<float>(numbers.normal() / std::sqrt(static_cast<double>(width)));
    }
    values["v"].assign(static_cast<std::size_t>(tokens * surroundings.width), 0.0f);
    values["o"].assign(static_cast<std::size_t>(tokens * surroundings.width), 0.0f);
    for (Index j = 0; j < tokens; ++j) {
      values["v"][static_cast<std::size_t>(j * surroundings.width + width + j)] = 1;
      values["o"][static_cast<std::size_t>(j * tokens + j)] = 1;
    }
    input.rows = tokens;
    input.inputs.resize(1);
    for (Index t = 0; t < tokens; ++t)
      for (Index c = 0; c < surroundings.width; ++c)
        input.inputs[0].push_back(c < width        ? static_cast<float>(numbers.normal())
                                  : c == width + t ? 1.0f
                                                   : 0.0f);
  }

  // [tokens][tokens], of the twin in double
  std::vector<double> weights(const std::string& kind) const {
    const std::vector<double> y = OneKind(kind, settings, surroundings, values).twin(input);
    std::vector<double> all;
    for (Index t = 0; t < input.rows; ++t)
      all.insert(all.end(), y.begin() + t * surroundings.width,
                 y.begin() + t * surroundings.width + input.rows);
    return all;
  }

  Json settings;
  Surroundings surroundings;
  OneKind::Values values;
  KindInput input;
};

// Parameters as a model would hold them.
inline Parameters parameters_of(const std::vector<TensorSpec>& specs, const OneKind::Values& values) {
  std::map<std::string, Tensor> tensors;
  for (const TensorSpec& spec : specs) tensors[spec.name] = make_tensor(spec.shape, values.at(spec.name));
  return Parameters(std::move(tensors));
}

}  // namespace plait::testing
