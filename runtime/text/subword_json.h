// The "model" of a tokenizer.json.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/text/byte_pair.h"
#include "runtime/text/subword.h"

namespace plait {

// What makes a model's JSON long.
struct SubwordTables {
  Vocabulary vocabulary;
  std::vector<Merge> merges;   // of byte-pair models; ids lie in the vocabulary
  std::vector<double> scores;  // of unigram models, [vocabulary.limit()]; finite
};

// Takes the tables out of a model, which keeps its settings and gets a type if it had none. Throws Error
// naming `where` for tables that are broken; of an unknown type nothing is taken.
SubwordTables take_tables(nlohmann::json& json, const std::string& where);

// `json` is what take_tables left. Throws Error naming `where` for what this plait does not know: another
// type, key, dropout.
std::unique_ptr<const Subword> make_subword(const nlohmann::json& json, SubwordTables tables,
                                            const std::string& where);

}  // namespace plait
