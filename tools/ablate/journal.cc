#include "tools/ablate/journal.h"

#include <algorithm>
#include <iterator>

#include "runtime/base/error.h"

namespace plait::ablate {
namespace {

constexpr std::string_view kMagic = "PLAITJ02";
constexpr std::size_t kHeader = 8 + 64;
constexpr std::size_t kBatchHead = 4 + 4 + 8 + 8, kUnitHead = 4 + 4 + 4, kPerScore = 4 + 4 + 4 + 1;

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

void check_header(std::span<const char> bytes, const std::string& path, const std::string& plan) {
  const std::string_view magic(bytes.data(), kMagic.size());
  if (magic.substr(0, 6) != kMagic.substr(0, 6)) fail("'", path, "' is no journal of a sweep");
  if (magic != kMagic)
    fail("journal '", path, "' was begun by another version of plait, which has to end it; ",
         "begin the study again in another folder");
  if (std::string_view(bytes.data() + kMagic.size(), 64) != plan)
    fail("journal '", path, "' belongs to another study: its plan, model, texts or arithmetic differ");
}

}  // namespace

Journal::Journal(const std::string& path, const std::string& plan_sha256) : file_(path) {
  const std::vector<char> bytes = file_.contents();
  std::size_t end = 0;
  if (bytes.size() >= kHeader) {
    check_header(bytes, path, plan_sha256);
    end = kHeader;
    while (const std::size_t size = record_size(bytes, end)) {
      add(parse(bytes, end));
      end += size;
    }
  }
  file_.cut(end);
  if (end > 0) return;
  file_.append(std::string(kMagic) + plan_sha256);
  file_.flush();
}

void Journal::add(const ScoredBatch& batch) {
  for (const UnitScores& unit : batch.units) done_.push_back(unit.unit);
  cost_ += batch.cost;
}

void Journal::append(const ScoredBatch& batch) {
  file_.append(record_of(batch));
  file_.flush();
  add(batch);
}

std::vector<UnitScores> Journal::read(const std::string& path, const std::string& plan_sha256) {
  const std::vector<char> bytes = AppendFile::read(path);
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
