// One attention head whose last row has logits the test chooses, read out weight by weight.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "tests/identities/attention_rows.h"

namespace plait::testing {

// Token j carries [1, s_j, e_j]: the query reads the one, the key s_j, the value e_j; head_dim 1 and scale 1,
// so q.k = s_j in every row that sees j.
struct LogitRow {
  LogitRow(Json json, const std::vector<double>& logits)
      : settings(std::move(json)), tokens(std::ssize(logits)) {
    settings["num_heads"] = 1;
    settings["head_dim"] = 1;
    settings["value_head_dim"] = tokens;
    surroundings.width = tokens + 2;
    surroundings.grids = {32, 64, 128};
    const Index width = surroundings.width;
    values = OneKind::random_values("softmax_attention", settings, surroundings, 1);
    values["q"] = values["k"] = std::vector<float>(static_cast<std::size_t>(width), 0.0f);
    values["q"][0] = values["k"][1] = 1;
    values["v"].assign(static_cast<std::size_t>(tokens * width), 0.0f);
    values["o"].assign(static_cast<std::size_t>(width * tokens), 0.0f);
    for (const char* name : {"forget", "affine_alpha", "r"})  // gates do not see the logits
      if (values.contains(name)) values[name][1] = 0;
    input.rows = tokens;
    input.inputs.assign(1, std::vector<float>(static_cast<std::size_t>(tokens * width), 0.0f));
    for (Index j = 0; j < tokens; ++j) {
      values["v"][static_cast<std::size_t>(j * width + 2 + j)] = 1;
      values["o"][static_cast<std::size_t>(j * tokens + j)] = 1;
      float* row = input.inputs[0].data() + j * width;
      row[0] = row[2 + j] = 1;
      row[1] = static_cast<float>(logits[static_cast<std::size_t>(j)]);
    }
  }

  // A projection that reads `value` in every token.
  void constant(const std::string& tensor, float value) {
    std::vector<float>& w = values.at(tensor);
    std::fill(w.begin(), w.end(), 0.0f);
    w[0] = value;
  }
  void set(const std::string& tensor, float value) {
    values.at(tensor).assign(values.at(tensor).size(), value);
  }

  OneKind kind() const { return OneKind("softmax_attention", settings, surroundings, values); }
  // The last row's weights, of the twin; the layer's must be near them.
  std::vector<double> weights() const {
    const OneKind tested = kind();
    const std::vector<double> all = tested.twin(input);
    expect_near(tested.run(input), all, 4, static_cast<double>(tokens));
    return last(all);
  }
  std::vector<double> last(const std::vector<double>& all) const {
    const auto begin = all.end() - surroundings.width;
    return {begin, begin + tokens};
  }

  Json settings;
  Index tokens;
  Surroundings surroundings;
  OneKind::Values values;
  KindInput input;
};

inline std::vector<double> weights_of(const Json& settings, const std::vector<double>& logits) {
  return LogitRow(settings, logits).weights();
}

}  // namespace plait::testing
