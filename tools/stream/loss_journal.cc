#include "tools/stream/loss_journal.h"

#include <algorithm>
#include <string_view>

#include "runtime/base/error.h"
#include "runtime/run/history.h"
#include "weights/array_file.h"
#include "weights/h5.h"
#include "weights/probe.h"

namespace plait::stream {
namespace {

constexpr std::string_view kMagic = "PLAITS01";
constexpr std::size_t kDigest = 64, kHeader = 8 + 8 + kDigest + 4, kRecord = 8 + 8 + 4 + 4 + 4;

const std::vector<std::string> kColumns = {"nll", "position", "token", "top1"};

std::vector<char> header_of(Index start, const std::string& sha256) {
  std::vector<char> bytes(kMagic.begin(), kMagic.end());
  put(bytes, static_cast<std::int64_t>(start));
  bytes.insert(bytes.end(), sha256.begin(), sha256.end());
  put(bytes, crc_of(bytes));
  return bytes;
}

void put_record(std::vector<char>& bytes, const Loss& loss) {
  const std::size_t begin = bytes.size();
  put(bytes, static_cast<std::int64_t>(loss.position));
  put(bytes, loss.nll);
  put(bytes, static_cast<std::int32_t>(loss.token));
  put(bytes, static_cast<std::uint32_t>(loss.top1));
  put(bytes, crc_of(std::span(bytes).subspan(begin)));
}

Index start_of(std::span<const char> bytes) {
  return static_cast<Index>(get<std::int64_t>(bytes, kMagic.size()));
}

void check_header(std::span<const char> bytes, const std::string& path) {
  const std::string_view magic(bytes.data(), kMagic.size());
  if (magic.substr(0, 6) != kMagic.substr(0, 6)) fail("'", path, "' is no journal of a stream");
  if (magic != kMagic)
    fail("journal '", path, "' was begun by another version of plait, which has to end it");
  if (crc_of(bytes.first(kHeader - 4)) != get<std::uint32_t>(bytes, kHeader - 4))
    fail("journal '", path, "' is damaged: its header disagrees with its CRC");
  if (start_of(bytes) < 0 || start_of(bytes) > kMostTokens)
    fail("journal '", path, "' is damaged: it begins at position ", start_of(bytes));
}

// The whole and undamaged records at the beginning, positions one after the other. The first is of the
// input's first token, or of the second where nothing predicted that one.
std::vector<Loss> records(std::span<const char> bytes) {
  std::vector<Loss> all;
  const Index start = start_of(bytes);
  for (std::size_t at = kHeader; at + kRecord <= bytes.size(); at += kRecord) {
    const auto record = bytes.subspan(at, kRecord);
    if (crc_of(record.first(kRecord - 4)) != get<std::uint32_t>(record, kRecord - 4)) break;
    const Loss loss{static_cast<Index>(get<std::int64_t>(record, 0)), get<std::int32_t>(record, 16),
                    get<std::uint32_t>(record, 20) != 0, get<double>(record, 8)};
    const Index next = all.empty() ? start : all.back().position + 1;
    if (loss.position != next && !(all.empty() && loss.position == start + 1)) break;
    all.push_back(loss);
  }
  return all;
}

}  // namespace

LossJournal::LossJournal(const std::string& path, Index start, const std::string& stream_sha256)
    : file_(path) {
  const std::vector<char> header = header_of(start, stream_sha256), bytes = file_.contents();
  if (bytes.size() < kHeader) {  // new, or killed before its header was whole
    if (!std::equal(bytes.begin(), bytes.end(), header.begin()))
      fail("'", path, "' is no journal of a stream");
    file_.cut(0);
    file_.append(header);
    file_.flush();
    return;
  }
  check_header(bytes, path);
  if (!std::equal(header.begin(), header.end(), bytes.begin()))
    fail("journal '", path,
         "' belongs to another stream: its model, arithmetic, edits or the text before its start differ");
  const std::vector<Loss> all = records(bytes);
  if (!all.empty()) end_ = all.back().position + 1;
  file_.cut(kHeader + all.size() * kRecord);
}

void LossJournal::append(std::span<const Loss> losses) {
  if (losses.empty()) return;
  std::vector<char> bytes;
  bytes.reserve(losses.size() * kRecord);
  for (const Loss& loss : losses) put_record(bytes, loss);
  file_.append(bytes);
  end_ = losses.back().position + 1;
}

std::vector<Loss> LossJournal::read(const std::string& path) {
  const std::vector<char> bytes = AppendFile::read(path);
  if (bytes.size() < kHeader) fail("'", path, "' is no journal of a stream");
  check_header(bytes, path);
  return records(bytes);
}

void write_losses(const std::string& path, std::span<const Loss> losses) {
  std::vector<std::int64_t> position, token, top1;
  std::vector<double> nll;
  for (const Loss& loss : losses) {
    position.push_back(loss.position);
    token.push_back(loss.token);
    nll.push_back(loss.nll);
    top1.push_back(loss.top1);
  }
  ArrayFile file(path);  // names as in kColumns
  file.add("position", position);
  file.add("token", token);
  file.add("nll", nll);
  file.add("top1", top1);
  file.finish();
}

namespace {

// A column of `rows` elements; with a null `to` it is read and dropped.
void read_column(const h5::File& file, const h5::Dataset& column, h5::Element element, Index rows, void* to,
                 const h5::Beat& beat) {
  if (column.element() != element || column.shape() != Shape{rows} || column.bytes() > file.size())
    fail(column.where(), ": is no column of ", rows, " losses");
  column.read(static_cast<std::byte*>(to), beat);
}

// rehearse: reads everything and keeps nothing.
std::vector<Loss> columns_of(const std::string& path, bool rehearse, const h5::Beat& beat) {
  const h5::File file = h5::File::open(path);
  const h5::Group root = file.root();
  if (root.names() != kColumns) fail("'", path, "' is no file of losses by position");
  const h5::Dataset position = root.dataset("position");
  const Index rows = position.shape().size() == 1 ? position.shape()[0] : 0;
  const auto n = rehearse ? 0 : static_cast<std::size_t>(rows);
  std::vector<std::int64_t> positions(n), tokens(n), top1(n);
  std::vector<double> nll(n);
  const auto into = [&](auto& values) -> void* { return rehearse ? nullptr : values.data(); };
  read_column(file, position, h5::Element::i64, rows, into(positions), beat);
  read_column(file, root.dataset("token"), h5::Element::i64, rows, into(tokens), beat);
  read_column(file, root.dataset("top1"), h5::Element::i64, rows, into(top1), beat);
  read_column(file, root.dataset("nll"), h5::Element::f64, rows, into(nll), beat);
  std::vector<Loss> losses;
  for (std::size_t i = 0; i < n; ++i) {
    if (positions[i] != positions[0] + static_cast<std::int64_t>(i))
      fail("'", path, "' is damaged: position ", positions[i], " follows ", positions[i - 1]);
    losses.push_back({static_cast<Index>(positions[i]), static_cast<Token>(tokens[i]), top1[i] != 0, nll[i]});
  }
  return losses;
}

}  // namespace

std::vector<Loss> read_losses(const std::string& path) {
  probe(path, [&](const h5::Beat& beat) { columns_of(path, true, beat); });
  return columns_of(path, false, {});
}

}  // namespace plait::stream
