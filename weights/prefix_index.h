// The index of a prefix store: which entries there are, in SQLite. It is believed only as far as the entries
// themselves bear it out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/view.h"

namespace plait {

// The database is damaged or none: make it anew.
class DamagedIndex : public Error {
 public:
  using Error::Error;
};

// It cannot be used now and may be good: busy, full disk, no permission.
class BusyIndex : public Error {
 public:
  using Error::Error;
};

class PrefixIndex {
 public:
  enum class Access { read_write, read_only };
  // `path`: a file, made if it is not there; ":memory:" for none. Every member throws DamagedIndex, and
  // BusyIndex when the database cannot be used (busy for ten seconds, full disk, read-only); this one Error,
  // too, where it is of another version or somebody else's.
  PrefixIndex(const std::string& path, Access access);
  ~PrefixIndex();
  PrefixIndex(PrefixIndex&&) noexcept;

  struct Owner {
    std::int64_t id;
    std::string json;
  };
  std::vector<Owner> owners() const;

  struct Row {
    std::string hash, parent;  // of the entry; of the one it builds on
    std::string key, base;     // digest of all its tokens; of those up to the boundary it builds on
    Index position = 0;
    std::vector<Token> tokens;  // since that boundary
    std::uint64_t bytes = 0;
  };
  // The entries of an owner that build on a boundary and lie beyond a position, deepest first.
  std::vector<Row> on(std::int64_t owner, const std::string& base, Index beyond) const;
  // By owner's digest and key of all tokens; hash is empty if there is none.
  Row find(const std::string& owner_digest, const std::string& key) const;
  Row find(const std::string& hash) const;

  // Marks entries as used last. Clocks play no part.
  void touch(const std::vector<std::string>& hashes);

  // Adds an entry unless it is there. First makes room for it in a budget: of the entries nothing builds on,
  // and that it does not build on itself, the least recently used go. Then calls `place`, which puts the file
  // where it belongs; all of it happens or nothing. Returns the hashes that went. Throws Error if its parent
  // is not there or there is no room.
  std::vector<std::string> add(const std::string& owner_digest, const std::string& owner_json, const Row& row,
                               std::uint64_t budget, const std::function<void()>& place);
  // Removes an entry and all that build on it; returns their hashes.
  std::vector<std::string> remove(const std::string& hash);
  std::vector<std::string> hashes() const;
  std::uint64_t bytes() const;  // of all entries

 private:
  struct Database;
  std::unique_ptr<Database> database_;
};

}  // namespace plait
