// What the registry knows of a kind and a model of its nodes, as data: behind `plait kinds` and `plait
// inspect`.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/run/model.h"
#include "runtime/run/registry.h"

namespace plait {

const char* name_of(Field::Kind kind);

struct TensorUse {
  TensorSpec spec;
  bool required;  // wanted by every example of the kind; the others come with an option
};

struct ExampleUse {
  Json settings;
  std::vector<Option> options;  // that the kind reads with them
};

// Everything of a kind that a card's author needs, gathered by building each of the kind's examples.
struct KindDescription {
  std::vector<Option> options;  // of all examples
  std::vector<ExampleUse> examples;
  std::vector<TensorUse> tensors;
  std::vector<SiteSpec> sites;
  std::vector<Field> fields;
};

KindDescription describe(const Kind& kind);
Json to_json(const Kind& kind, const KindDescription& description);
Json to_json(const std::vector<Option>& options);  // [{"name", "type", "default", "help"}]

const char* name_of(Kind::Graphs graphs);  // "causal, encoder"

// Every place of a layer an edit may name: its own sites, its output, and the resets the executor applies to
// any state.
std::vector<SiteSpec> sites_of(const Layer& layer);
std::string operators_of(const SiteSpec& site);  // "zero, scale, skip"

Json to_json(const SiteSpec& site);  // {"site", "operators"}
Json to_json(const Field& field);    // {"name", "kind", "shape", "dtype", "grid", "window", "sinks", "bytes"}

// Of the fields of one node's state: bytes at position 0, where logs are empty.
std::size_t birth_bytes(std::span<const Field> fields);
// Bytes its unlimited logs grow by with each token.
std::size_t log_bytes_per_token(std::span<const Field> fields);
// Bytes its windowed logs hold at most (window and sinks).
std::size_t window_bytes(std::span<const Field> fields);

}  // namespace plait
