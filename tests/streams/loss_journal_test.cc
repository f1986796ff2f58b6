// The journal of a stream: what is written is read, what is torn is cut, what is foreign is refused.
#include "tools/stream/loss_journal.h"

#include <gtest/gtest.h>

#include "tests/files.h"

namespace plait::stream {
namespace {

using testing::read_bytes;
using testing::sentence;
using testing::write_bytes;

constexpr std::size_t kHeader = 84, kRecord = 28;  // tools/stream/README.md

std::vector<Loss> losses(Index begin, Index end) {
  std::vector<Loss> all;
  for (Index p = begin; p < end; ++p)
    all.push_back({p, static_cast<Token>(p * 7 % 50), p % 3 == 0, 0.25 * static_cast<double>(p)});
  return all;
}

class LossJournals : public ::testing::Test {
 protected:
  testing::Folder folder_;
  std::string path_ = folder_ / "j", id_ = std::string(64, 'a');
};

TEST_F(LossJournals, WhatIsWrittenIsReadWhileItGrows) {
  LossJournal journal(path_, 0, id_);
  EXPECT_FALSE(journal.end());
  journal.append(losses(1, 5));
  EXPECT_EQ(LossJournal::read(path_), losses(1, 5));
  journal.append(losses(5, 9));
  EXPECT_EQ(LossJournal::read(path_), losses(1, 9));
  EXPECT_EQ(journal.end(), 9);
  EXPECT_EQ(read_bytes(path_).size(), kHeader + 8 * kRecord);
}

TEST_F(LossJournals, EveryCutLeavesTheWholeRecords) {
  { LossJournal(path_, 0, id_).append(losses(1, 5)); }
  const std::string bytes = read_bytes(path_);
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    write_bytes(path_, bytes.substr(0, size));
    LossJournal journal(path_, 0, id_);
    const Index whole = size < kHeader ? 0 : static_cast<Index>((size - kHeader) / kRecord);
    EXPECT_EQ(journal.end().value_or(1), 1 + whole) << size;
    journal.append(losses(1 + whole, 5));
    EXPECT_EQ(read_bytes(path_), bytes) << size;
  }
}

TEST_F(LossJournals, NoChangedByteIsTakenForARecord) {
  { LossJournal(path_, 0, id_).append(losses(1, 5)); }
  const std::string bytes = read_bytes(path_);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x20);
    write_bytes(path_, changed);
    if (at < kHeader) {
      EXPECT_FALSE(sentence([&] { LossJournal::read(path_); }).empty()) << at;
      EXPECT_FALSE(sentence([&] { LossJournal(path_, 0, id_); }).empty()) << at;
    } else {
      EXPECT_EQ(LossJournal::read(path_).size(), (at - kHeader) / kRecord) << at;
    }
  }
}

TEST_F(LossJournals, ForeignFilesAreRefusedAndLeftAlone) {
  { LossJournal(path_, 0, id_).append(losses(1, 3)); }
  const std::string bytes = read_bytes(path_);
  EXPECT_NE(sentence([&] { LossJournal(path_, 0, std::string(64, 'b')); }).find("another stream"),
            std::string::npos);
  EXPECT_NE(sentence([&] { LossJournal(path_, 5, id_); }).find("another stream"), std::string::npos);
  EXPECT_EQ(read_bytes(path_), bytes);
  for (const std::string& other : {std::string("short"), std::string(200, 'x')}) {
    write_bytes(path_, other);
    EXPECT_NE(sentence([&] { LossJournal(path_, 0, id_); }).find("no journal"), std::string::npos);
    EXPECT_EQ(read_bytes(path_), other);
  }
  EXPECT_NE(sentence([&] { LossJournal(folder_ / "no/j", 0, id_); }).find("cannot be opened"),
            std::string::npos);
}

}  // namespace
}  // namespace plait::stream
