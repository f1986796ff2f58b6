#include "weights/prefix_index.h"

#include <sqlite3.h>

#include <cstring>

#include "weights/json_text.h"
#include "weights/resources.h"

namespace plait {
namespace {

constexpr int kBusyMilliseconds = 10000;
constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kApplication = 0x706c7066;  // "plpf"

// No flushing: after a power cut the index may be damaged and is made anew, and no entry is believed without
// its own SHA-256.
constexpr const char* kSettings =
    "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA synchronous = OFF;";

constexpr const char* kSchema =
    "CREATE TABLE owners (id INTEGER PRIMARY KEY, digest TEXT UNIQUE NOT NULL, json TEXT NOT NULL);"
    "CREATE TABLE entries (hash TEXT PRIMARY KEY, parent TEXT NOT NULL, owner INTEGER NOT NULL,"
    " key TEXT NOT NULL, base TEXT NOT NULL, position INTEGER NOT NULL, tokens BLOB NOT NULL,"
    " bytes INTEGER NOT NULL, used INTEGER NOT NULL);"
    "CREATE INDEX by_base ON entries (owner, base, position);"
    "CREATE INDEX by_key ON entries (owner, key);"
    "CREATE INDEX by_parent ON entries (parent);"
    "CREATE INDEX by_use ON entries (used);";

[[noreturn]] void raise(int code, const std::string& path, const char* message) {
  const std::string text = cat("the index '", path, "' cannot be used: ", printable(message));
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_SCHEMA:
    case SQLITE_ERROR:  // a table or column is missing
    case SQLITE_MISMATCH:
      throw DamagedIndex(text);
    default:
      throw BusyIndex(text);
  }
}

}  // namespace

struct PrefixIndex::Database {
  sqlite3* handle = nullptr;
  std::string path;

  ~Database() { sqlite3_close(handle); }
  void check(int code) const {
    if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW)
      raise(code, path, handle ? sqlite3_errmsg(handle) : sqlite3_errstr(code));
  }
  void run(const char* sql) const { check(sqlite3_exec(handle, sql, nullptr, nullptr, nullptr)); }
};

namespace {

// One statement, with its values bound from the left.
class Query {
 public:
  template <class Database, class... Values>
  Query(const Database& database, const char* sql, const Values&... values)
      : check_([&database](int code) { database.check(code); }) {
    check_(sqlite3_prepare_v2(database.handle, sql, -1, &statement_, nullptr));
    int at = 0;
    (bind(++at, values), ...);
  }
  ~Query() { sqlite3_finalize(statement_); }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  bool next() {
    const int code = sqlite3_step(statement_);
    check_(code);
    return code == SQLITE_ROW;
  }
  void run() {
    while (next()) {
    }
  }
  std::int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) const {
    const unsigned char* data = sqlite3_column_text(statement_, column);
    return data ? std::string(reinterpret_cast<const char*>(data),
                              static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)))
                : std::string();
  }
  std::vector<Token> tokens(int column) const {
    const void* data = sqlite3_column_blob(statement_, column);
    std::vector<Token> all(static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)) /
                           sizeof(Token));
    if (!all.empty()) std::memcpy(all.data(), data, all.size() * sizeof(Token));
    return all;
  }

 private:
  void bind(int at, std::int64_t value) { check_(sqlite3_bind_int64(statement_, at, value)); }
  void bind(int at, const std::string& text) {
    check_(sqlite3_bind_text64(statement_, at, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  }
  void bind(int at, const std::vector<Token>& tokens) {
    check_(sqlite3_bind_blob64(statement_, at, tokens.empty() ? static_cast<const void*>("") : tokens.data(),
                               tokens.size() * sizeof(Token), SQLITE_TRANSIENT));
  }

  std::function<void(int)> check_;
  sqlite3_stmt* statement_ = nullptr;
};

// Everything in it happens, or nothing if it is left by an exception.
template <class Database>
class Transaction {
 public:
  explicit Transaction(const Database& database) : database_(database) { database.run("BEGIN IMMEDIATE"); }
  ~Transaction() {
    if (!done_) sqlite3_exec(database_.handle, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit() {
    database_.run("COMMIT");
    done_ = true;
  }

 private:
  const Database& database_;
  bool done_ = false;
};

constexpr const char* kNextUse = "SELECT coalesce(max(used), 0) + 1 FROM entries";

template <class Database>
std::int64_t number(const Database& database, const char* sql) {
  Query query(database, sql);
  return query.next() ? query.integer(0) : 0;
}

PrefixIndex::Row row_of(const Query& query) {
  return {query.text(0),
          query.text(1),
          query.text(2),
          query.text(3),
          static_cast<Index>(query.integer(4)),
          query.tokens(5),
          static_cast<std::uint64_t>(query.integer(6))};
}

#define PLAIT_ROW "hash, parent, key, base, position, tokens, bytes"

}  // namespace

PrefixIndex::PrefixIndex(const std::string& path, Access access) : database_(std::make_unique<Database>()) {
  Database& database = *database_;
  database.path = path;
  const int flags =
      access == Access::read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  database.check(sqlite3_open_v2(path.c_str(), &database.handle, flags | SQLITE_OPEN_NOMUTEX, nullptr));
  sqlite3_busy_timeout(database.handle, kBusyMilliseconds);
  sqlite3_db_config(database.handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  database.run(kSettings);
  const auto fresh = [&] {
    for (const char* what : {"PRAGMA schema_version", "PRAGMA application_id", "PRAGMA user_version"})
      if (number(database, what) != 0) return false;
    return true;
  };
  if (access == Access::read_write && fresh()) {
    Transaction transaction(database);  // another process may be making it, too
    if (fresh()) {
      database.run(kSchema);
      database.run(
          cat("PRAGMA application_id = ", kApplication, "; PRAGMA user_version = ", kVersion).c_str());
    }
    transaction.commit();
  }
  if (number(database, "PRAGMA application_id") != kApplication) {
    const std::string text = cat("the index '", path, "' is not that of a prefix store");
    if (number(database, "SELECT count(*) FROM sqlite_master WHERE name IN ('owners', 'entries')") < 2)
      throw Error(text + "; it is left as it is");  // somebody else's
    throw DamagedIndex(text);
  }
  const std::int64_t version = number(database, "PRAGMA user_version");
  if (version != kVersion)
    fail("the index '", path, "' has version ", version, ", this program reads version ", kVersion);
}
PrefixIndex::~PrefixIndex() = default;
PrefixIndex::PrefixIndex(PrefixIndex&&) noexcept = default;

std::vector<PrefixIndex::Owner> PrefixIndex::owners() const {
  std::vector<Owner> all;
  Query query(*database_, "SELECT id, json FROM owners WHERE id IN (SELECT owner FROM entries)");
  while (query.next()) all.push_back({query.integer(0), query.text(1)});
  return all;
}

std::vector<PrefixIndex::Row> PrefixIndex::on(std::int64_t owner, const std::string& base,
                                              Index beyond) const {
  std::vector<Row> all;
  Query query(*database_,
              "SELECT " PLAIT_ROW
              " FROM entries WHERE owner = ?1 AND base = ?2 AND position > ?3 ORDER BY position DESC",
              owner, base, std::int64_t{beyond});
  while (query.next()) all.push_back(row_of(query));
  return all;
}

PrefixIndex::Row PrefixIndex::find(const std::string& owner_digest, const std::string& key) const {
  Query query(*database_,
              "SELECT " PLAIT_ROW
              " FROM entries WHERE owner = (SELECT id FROM owners WHERE digest = ?1)"
              " AND key = ?2",
              owner_digest, key);
  return query.next() ? row_of(query) : Row();
}

PrefixIndex::Row PrefixIndex::find(const std::string& hash) const {
  Query query(*database_, "SELECT " PLAIT_ROW " FROM entries WHERE hash = ?1", hash);
  return query.next() ? row_of(query) : Row();
}

void PrefixIndex::touch(const std::vector<std::string>& hashes) {
  Transaction transaction(*database_);
  const std::int64_t now = number(*database_, kNextUse);
  for (const std::string& hash : hashes)
    Query(*database_, "UPDATE entries SET used = ?1 WHERE hash = ?2", now, hash).run();
  transaction.commit();
}

std::vector<std::string> PrefixIndex::add(const std::string& owner_digest, const std::string& owner_json,
                                          const Row& row, std::uint64_t budget,
                                          const std::function<void()>& place) {
  std::vector<std::string> gone;
  Transaction transaction(*database_);
  if (!find(owner_digest, row.key).hash.empty()) return gone;
  if (!row.parent.empty() && find(row.parent).hash.empty())
    fail("the entry it builds on is not there any more");
  std::uint64_t held = bytes();
  while (held + row.bytes > budget) {
    // The next to go: a leaf that is no ancestor of the new entry.
    Query oldest(*database_,
                 "WITH RECURSIVE up(hash) AS (VALUES(?1) UNION"
                 " SELECT e.parent FROM entries e, up WHERE e.hash = up.hash)"
                 "SELECT hash, bytes FROM entries e WHERE hash NOT IN (SELECT hash FROM up) AND NOT EXISTS"
                 " (SELECT 1 FROM entries c WHERE c.parent = e.hash) ORDER BY used, position DESC LIMIT 1",
                 row.parent);
    if (!oldest.next())
      fail("it has ", byte_text(row.bytes), ", what it builds on ", byte_text(held), ", the budget is ",
           byte_text(budget));
    gone.push_back(oldest.text(0));
    held -= std::min(held, static_cast<std::uint64_t>(oldest.integer(1)));
    Query(*database_, "DELETE FROM entries WHERE hash = ?1", gone.back()).run();
  }
  if (!gone.empty()) database_->run("DELETE FROM owners WHERE id NOT IN (SELECT owner FROM entries)");
  Query(*database_, "INSERT OR IGNORE INTO owners (digest, json) VALUES (?1, ?2)", owner_digest, owner_json)
      .run();
  Query(*database_,
        "INSERT INTO entries VALUES (?1, ?2, (SELECT id FROM owners WHERE digest = ?3), ?4, ?5, ?6, ?7, ?8, "
        "?9)",
        row.hash, row.parent, owner_digest, row.key, row.base, std::int64_t{row.position}, row.tokens,
        static_cast<std::int64_t>(row.bytes), number(*database_, kNextUse))
      .run();
  place();
  transaction.commit();
  return gone;
}

std::vector<std::string> PrefixIndex::remove(const std::string& hash) {
  std::vector<std::string> gone;
  Transaction transaction(*database_);
  Query below(*database_,
              "WITH RECURSIVE down(hash) AS (VALUES(?1) UNION"
              " SELECT e.hash FROM entries e, down WHERE e.parent = down.hash) SELECT hash FROM down",
              hash);
  while (below.next()) gone.push_back(below.text(0));
  for (const std::string& each : gone) Query(*database_, "DELETE FROM entries WHERE hash = ?1", each).run();
  transaction.commit();
  return gone;
}

std::vector<std::string> PrefixIndex::hashes() const {
  std::vector<std::string> all;
  Query query(*database_, "SELECT hash FROM entries");
  while (query.next()) all.push_back(query.text(0));
  return all;
}

std::uint64_t PrefixIndex::bytes() const {
  return static_cast<std::uint64_t>(number(*database_, "SELECT coalesce(sum(bytes), 0) FROM entries"));
}

}  // namespace plait
