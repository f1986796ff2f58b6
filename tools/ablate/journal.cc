#include "tools/ablate/journal.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

constexpr std::string_view kMagic = "PLAITJ02";
constexpr std::size_t kHeader = 8 + 64;
constexpr std::size_t kBatchHead = 4 + 4 + 8 + 8, kUnitHead = 4 + 4 + 4, kPerScore = 4 + 4 + 4 + 1;

std::uint32_t crc_of(std::span<const char> bytes) {
  return static_cast<std::uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<z_size_t>(bytes.size())));
}

template <class T>
void put(std::vector<char>& bytes, T value) {
  const auto* raw = reinterpret_cast<const char*>(&value);
  bytes.insert(bytes.end(), raw, raw + sizeof value);
}

template <class T>
T get(std::span<const char> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

void put_unit(std::vector<char>& bytes, const UnitScores& unit) {
  for (const Index value : {unit.unit, unit.conditions, unit.tokens})
    put(bytes, static_cast<std::uint32_t>(value));
  for (const TokenScores& s : unit.scores) put(bytes, s.nll);
  for (const TokenScores& s : unit.scores) put(bytes, s.kl);
  for (const TokenScores& s : unit.scores) put(bytes, s.rank);
  for (const TokenScores& s : unit.scores) put(bytes, s.agree);
}

std::vector<char> record_of(const ScoredBatch& batch) {
  std::size_t size = kBatchHead + 4;
  for (const UnitScores& unit : batch.units) size += kUnitHead + unit.scores.size() * kPerScore;
  std::vector<char> bytes;
  bytes.reserve(size);
  put(bytes, static_cast<std::uint32_t>(batch.units.size()));
  put(bytes, static_cast<std::uint32_t>(batch.cost.tiles));
  put(bytes, static_cast<std::uint64_t>(batch.cost.tokens));
  put(bytes, batch.cost.rows);
  for (const UnitScores& unit : batch.units) put_unit(bytes, unit);
  put(bytes, crc_of(bytes));
  return bytes;
}

// Bytes of the unit at `at`; 0 if it does not end within `bytes`.
std::size_t unit_size(std::span<const char> bytes, std::size_t at) {
  if (bytes.size() - at < kUnitHead) return 0;
  const std::uint64_t count =
      std::uint64_t{get<std::uint32_t>(bytes, at + 4)} * get<std::uint32_t>(bytes, at + 8);
  if (count > (bytes.size() - at - kUnitHead) / kPerScore) return 0;
  return kUnitHead + static_cast<std::size_t>(count) * kPerScore;
}

// Bytes of the whole and undamaged record at `at`; 0 if there is none.
std::size_t record_size(std::span<const char> bytes, std::size_t at) {
  if (bytes.size() - at < kBatchHead) return 0;
  const auto units = get<std::uint32_t>(bytes, at);
  std::size_t end = at + kBatchHead;
  for (std::uint32_t u = 0; u < units; ++u) {
    const std::size_t size = unit_size(bytes, end);
    if (size == 0) return 0;
    end += size;
  }
  if (bytes.size() - end < 4) return 0;
  return crc_of(bytes.subspan(at, end - at)) == get<std::uint32_t>(bytes, end) ? end + 4 - at : 0;
}

UnitScores parse_unit(std::span<const char> bytes, std::size_t at) {
  UnitScores unit;
  unit.unit = get<std::uint32_t>(bytes, at);
  unit.conditions = get<std::uint32_t>(bytes, at + 4);
  unit.tokens = get<std::uint32_t>(bytes, at + 8);
  const auto count = static_cast<std::size_t>(unit.conditions * unit.tokens);
  unit.scores.resize(count);
  const std::size_t nll = at + kUnitHead, kl = nll + 4 * count, rank = kl + 4 * count,
                    agree = rank + 4 * count;
  for (std::size_t i = 0; i < count; ++i)
    unit.scores[i] = {get<float>(bytes, nll + 4 * i), get<float>(bytes, kl + 4 * i),
                      get<std::int32_t>(bytes, rank + 4 * i), get<std::uint8_t>(bytes, agree + i)};
  return unit;
}

// Of a record that record_size has measured.
ScoredBatch parse(std::span<const char> bytes, std::size_t at) {
  ScoredBatch batch;
  batch.cost.tiles = get<std::uint32_t>(bytes, at + 4);
  batch.cost.tokens = static_cast<Index>(get<std::uint64_t>(bytes, at + 8));
  batch.cost.rows = get<double>(bytes, at + 16);
  const auto units = get<std::uint32_t>(bytes, at);
  at += kBatchHead;
  for (std::uint32_t u = 0; u < units; ++u) {
    batch.units.push_back(parse_unit(bytes, at));
    at += unit_size(bytes, at);
  }
  return batch;
}

std::vector<char> contents(int file, const std::string& path) {
  std::vector<char> bytes;
  char block[1 << 16];
  for (;;) {
    const ssize_t count = ::read(file, block, sizeof block);
    if (count < 0) fail("journal '", path, "' cannot be read: ", std::strerror(errno));
    if (count == 0) return bytes;
    bytes.insert(bytes.end(), block, block + count);
  }
}

void check_header(std::span<const char> bytes, const std::string& path, const std::string& plan) {
  const std::string_view magic(bytes.data(), kMagic.size());
  if (magic.substr(0, 6) != kMagic.substr(0, 6)) fail("'", path, "' is no journal of a sweep");
  if (magic != kMagic)
    fail("journal '", path, "' was begun by another version of plait, which has to end it; ",
         "begin the study again in another folder");
  if (std::string_view(bytes.data() + kMagic.size(), 64) != plan)
    fail("journal '", path, "' belongs to another study: its plan, model, texts or arithmetic differ");
}

void write_all(int file, std::span<const char> bytes, const std::string& path) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("journal '", path, "' cannot be written: ", std::strerror(errno));
    done += static_cast<std::size_t>(count);
  }
  if (::fdatasync(file) != 0) fail("journal '", path, "' cannot be written: ", std::strerror(errno));
}

}  // namespace

Journal::Journal(const std::string& path, const std::string& plan_sha256) : path_(path) {
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0) fail("journal '", path, "' cannot be opened: ", std::strerror(errno));
  const std::vector<char> bytes = contents(file_, path);
  std::size_t end = 0;
  if (bytes.size() >= kHeader) {
    check_header(bytes, path, plan_sha256);
    end = kHeader;
    while (const std::size_t size = record_size(bytes, end)) {
      add(parse(bytes, end));
      end += size;
    }
  }
  if (::ftruncate(file_, static_cast<off_t>(end)) != 0 || ::lseek(file_, 0, SEEK_END) < 0)
    fail("journal '", path, "' cannot be written: ", std::strerror(errno));
  if (end == 0) {
    const std::string header = std::string(kMagic) + plan_sha256;
    write_all(file_, header, path);
  }
}

Journal::~Journal() {
  if (file_ >= 0) ::close(file_);
}

void Journal::add(const ScoredBatch& batch) {
  for (const UnitScores& unit : batch.units) done_.push_back(unit.unit);
  cost_ += batch.cost;
}

void Journal::append(const ScoredBatch& batch) {
  write_all(file_, record_of(batch), path_);
  add(batch);
}

std::vector<UnitScores> Journal::read(const std::string& path, const std::string& plan_sha256) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("journal '", path, "' cannot be opened: ", std::strerror(errno));
  const std::vector<char> bytes = contents(file, path);
  ::close(file);
  if (bytes.size() < kHeader) fail("'", path, "' is no journal of a sweep");
  check_header(bytes, path, plan_sha256);
  std::vector<UnitScores> units;
  for (std::size_t at = kHeader; at < bytes.size();) {
    const std::size_t size = record_size(bytes, at);
    if (size == 0) fail("journal '", path, "' is damaged at byte ", at);
    ScoredBatch batch = parse(bytes, at);
    std::move(batch.units.begin(), batch.units.end(), std::back_inserter(units));
    at += size;
  }
  std::stable_sort(units.begin(), units.end(), [](const auto& a, const auto& b) { return a.unit < b.unit; });
  return units;
}

}  // namespace plait::ablate
