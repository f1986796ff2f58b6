// Recurrences of forms A and B by definition, a double loop over tokens, beside the cores that run them in
// chunks.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "layers/recurrent/decayed_sum.h"
#include "layers/recurrent/delta.h"
#include "tests/identities/tolerance.h"
#include "tests/testing.h"

namespace plait::testing {

// Inputs of one recurrence: S = diag(e^g) S; S += k (write v - erase S^T k)^T; o = S^T q.
struct RecurrentRows {
  Index rows = 0;
  Index query_heads = 1, key_heads = 1, state_heads = 1;
  Index key = 0, value = 0;
  Index channels = 0;  // log decays of a state head: 0 = none, 1, or `key`
  std::vector<float> q, k, v, g, erase, write;

  Index outputs() const { return std::max(query_heads, state_heads); }
  View<const float> view(const std::vector<float>& x) const {
    return {x.data(), rows, static_cast<Index>(x.size()) / std::max<Index>(rows, 1)};
  }
};

inline void normalise_rows(std::vector<float>& x, Index width) {
  for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(width)) {
    double sum = 0;
    for (Index c = 0; c < width; ++c)
      sum += std::pow(static_cast<double>(x[i + static_cast<std::size_t>(c)]), 2);
    for (Index c = 0; c < width; ++c)
      x[i + static_cast<std::size_t>(c)] =
          static_cast<float>(x[i + static_cast<std::size_t>(c)] / std::sqrt(sum));
  }
}

// Unit keys, queries of length about 1, decays e^g near and far from 1, strengths in [0, 2).
inline RecurrentRows random_rows(RecurrentRows r, std::uint64_t seed) {
  Numbers numbers(seed);
  r.q = numbers.normals(r.rows * r.query_heads * r.key, 1 / std::sqrt(static_cast<double>(r.key)));
  r.k = numbers.normals(r.rows * r.key_heads * r.key);
  normalise_rows(r.k, r.key);
  r.v = numbers.normals(r.rows * r.state_heads * r.value);
  r.g.resize(static_cast<std::size_t>(r.rows * r.state_heads * r.channels));
  for (float& g : r.g) g = static_cast<float>(-std::exp(numbers.uniform(-7, 1)));
  r.erase.resize(static_cast<std::size_t>(r.rows * r.state_heads));
  for (float& x : r.erase) x = static_cast<float>(numbers.uniform(0, 2));
  r.write = r.erase;
  return r;
}

// By definition. `states` [state_heads, key, value]: in and out; empty = zeros.
inline std::vector<double> loop(const RecurrentRows& r, std::vector<double>* states = nullptr) {
  const auto at = [](const std::vector<float>& x, Index i) {
    return static_cast<double>(x[static_cast<std::size_t>(i)]);
  };
  std::vector<double> local, o(static_cast<std::size_t>(r.rows * r.outputs() * r.value));
  if (!states) states = &local;
  states->resize(static_cast<std::size_t>(r.state_heads * r.key * r.value));
  for (Index h = 0; h < r.state_heads; ++h)
    for (Index t = 0; t < r.rows; ++t) {
      double* s = states->data() + h * r.key * r.value;
      const Index kh = h / (r.state_heads / r.key_heads), row = t * r.state_heads + h;
      for (Index d = 0; r.channels > 0 && d < r.key; ++d)
        for (Index c = 0; c < r.value; ++c)
          s[d * r.value + c] *= std::exp(at(r.g, row * r.channels + (r.channels == 1 ? 0 : d)));
      for (Index c = 0; c < r.value; ++c) {
        double old = 0;
        for (Index d = 0; d < r.key; ++d)
          old += s[d * r.value + c] * at(r.k, (t * r.key_heads + kh) * r.key + d);
        const double u = at(r.write, row) * at(r.v, row * r.value + c) - at(r.erase, row) * old;
        for (Index d = 0; d < r.key; ++d)
          s[d * r.value + c] += at(r.k, (t * r.key_heads + kh) * r.key + d) * u;
      }
      const Index reads = r.outputs() / r.state_heads;
      for (Index i = h * reads; i < (h + 1) * reads; ++i) {
        const Index qh = i / (r.outputs() / r.query_heads);
        for (Index c = 0; c < r.value; ++c)
          for (Index d = 0; d < r.key; ++d)
            o[static_cast<std::size_t>((t * r.outputs() + i) * r.value + c)] +=
                s[d * r.value + c] * at(r.q, (t * r.query_heads + qh) * r.key + d);
      }
    }
  return o;
}

inline Delta delta_core(const RecurrentRows& r, Index chunk) {
  return Delta({r.key_heads, r.state_heads, r.key, r.value, chunk,
                r.channels == 0 ? Delta::Decay::none : Delta::Decay::scalar},
               0);
}
inline DecayedSum sum_core(const RecurrentRows& r, Index chunk) {
  const auto decay = r.channels == 0   ? DecayedSum::Decay::none
                     : r.channels == 1 ? DecayedSum::Decay::scalar
                                       : DecayedSum::Decay::channelwise;
  return DecayedSum({r.query_heads, r.key_heads, r.state_heads, r.key, r.value, chunk, decay}, 0);
}

inline Delta::Rows rows_for(const Delta&, const RecurrentRows& r, View<float> o) {
  return {r.view(r.q), r.view(r.k), r.view(r.v), r.view(r.g), r.view(r.erase), r.view(r.write), o};
}
inline DecayedSum::Rows rows_for(const DecayedSum&, const RecurrentRows& r, View<float> o) {
  return {r.view(r.q), r.view(r.k), r.view(r.v), r.view(r.g), r.view(r.write), o};
}

// Feeds all rows to a core, in pieces of `split` (repeated). [rows, outputs * value]
template <class Core>
std::vector<float> through(const Core& core, const RecurrentRows& r, State& state,
                           const std::vector<Index>& split, const Compute& compute = {}) {
  std::vector<float> o(static_cast<std::size_t>(r.rows * r.outputs() * r.value), std::nanf(""));
  const auto rows = rows_for(core, r, View<float>(o.data(), r.rows, r.outputs() * r.value));
  const Index start = state.position();
  for (Index done = 0, call = 0; done < r.rows; ++call) {
    const Index count = std::min(split[static_cast<std::size_t>(call) % split.size()], r.rows - done);
    const Segment segment{&state, start + done, done, count, nullptr};
    core.run(rows, {&segment, 1}, compute);
    done += count;
    state.advance(start + done);
  }
  return o;
}
template <class Core>
std::vector<float> through(const Core& core, const RecurrentRows& r,
                           const std::vector<Index>& split = {1 << 20}) {
  const std::vector<Field> fields = core.fields();
  State state(fields);
  return through(core, r, state, split);
}

// The anchor's state [state_heads, key, value] out of, or into, its panels.
inline std::vector<double> unpack_state(const RecurrentRows& r, const State& state) {
  const StateShape shape{r.key, r.value};
  std::vector<double> all(static_cast<std::size_t>(r.state_heads * r.key * r.value));
  for (Index h = 0; h < r.state_heads; ++h)
    for (Index d = 0; d < r.key; ++d)
      for (Index c = 0; c < r.value; ++c)
        all[static_cast<std::size_t>((h * r.key + d) * r.value + c)] = static_cast<double>(
            state.peek(0)[h * shape.elements() + (c / kPanel * r.key + d) * kPanel + c % kPanel]);
  return all;
}
inline void pack_state(const RecurrentRows& r, const std::vector<double>& values, State& state) {
  const StateShape shape{r.key, r.value};
  float* anchor = state.anchor(0);
  for (Index h = 0; h < r.state_heads; ++h)
    for (Index d = 0; d < r.key; ++d)
      for (Index c = 0; c < r.value; ++c)
        anchor[h * shape.elements() + (c / kPanel * r.key + d) * kPanel + c % kPanel] =
            static_cast<float>(values[static_cast<std::size_t>((h * r.key + d) * r.value + c)]);
}

// Chunk lengths of identity 1 and the splits every one of them must not notice.
inline const std::vector<Index> kChunks = {1, 3, 8, 16, 32, 64};
inline const std::vector<std::vector<Index>> kSplits = {{1}, {7, 64, 1}, {33, 31}, {5}};

// Identities 1 and 2 for a core: its chunk form, ragged, from a state that is not zero, is the recurrence;
// outputs and state are the same bits over any split. The relative error is that of `length` random
// roundings.
template <class MakeCore>
void expect_recurrence(const RecurrentRows& r, MakeCore&& make, double c, double length) {
  Numbers numbers(99);
  std::vector<double> start(static_cast<std::size_t>(r.state_heads * r.key * r.value));
  for (double& s : start) s = static_cast<double>(static_cast<float>(0.3 * numbers.normal()));
  std::vector<double> end = start;
  const std::vector<double> expected = loop(r, &end);
  for (const Index chunk : kChunks) {
    const auto core = make(r, chunk);
    const std::vector<Field> fields = core.fields();
    State whole(fields);
    pack_state(r, start, whole);
    const std::vector<float> o = through(core, r, whole, {r.rows});
    expect_near(o, expected, c, length);
    if (r.rows % chunk == 0) expect_near(unpack_state(r, whole), end, c, length);
    for (const std::vector<Index>& split : kSplits) {
      State state(fields);
      pack_state(r, start, state);
      EXPECT_TRUE(same_bits(through(core, r, state, split), o))
          << "chunk " << chunk << ", split " << split[0];
      EXPECT_TRUE(state.equal(whole)) << "chunk " << chunk << ", split " << split[0];
    }
  }
}

}  // namespace plait::testing
