// One entry of a prefix store: what a stream at one position adds to the entry it builds on. The file's
// layout is on prefix_store.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/run/stream.h"

namespace plait {

// Whose state it is: everything that must be the same for a stream to go on from it.
struct PrefixOwner {
  std::string model;  // Model::identity
  Json arithmetic, edits;
  Index stride = 0;   // of the boundaries
  std::string notes;  // the name of what the caller keeps with the tokens; empty = nothing

  Json json() const;
  // Throws Error naming `what`.
  static PrefixOwner parse(const Json& json, const std::string& what);
  std::string digest() const;  // SHA-256, in hex
  // For people: "numerics differ, edits differ"; empty if nothing does.
  std::string differences(const PrefixOwner& other) const;
};

struct PrefixEntry {
  PrefixOwner owner;
  std::string model_name;
  std::string parent;  // hash of the entry at `base`; empty where base is 0
  Index base = 0, position = 0;
  std::vector<Token> tokens;                // [base, position)
  std::vector<float> logits;                // after the last of them
  std::string notes;                        // the caller's, of these tokens
  std::vector<Snapshot::NodeState> states;  // at `position`; pieces of logs before `base` have no rows
};

// The entry as a file's bytes, and its hash: the SHA-256, in hex, of all bytes before the trailer. Equal
// entries give equal bytes.
struct PackedEntry {
  std::string bytes, hash;
};
PackedEntry pack(const PrefixEntry& entry);

// Throws Error naming `what` if the bytes are no entry, were cut or changed, contradict themselves or have
// another hash (empty: any).
PrefixEntry unpack(std::string_view bytes, const std::string& hash, const std::string& what);

// Lets go of what join() takes from the last entry of a chain alone: of this one tokens, notes and the rows
// of logs stay.
void keep_rows_only(PrefixEntry& entry);

// The stream at the end of a chain of entries, the first at base 0, each the parent of the next; its id is 0.
// Throws Error naming `what` if they do not fit together.
Snapshot join(const std::vector<PrefixEntry>& chain, const std::string& what);

}  // namespace plait
