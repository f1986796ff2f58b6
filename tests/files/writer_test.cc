// Writing that fails leaves nothing behind and says why.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>

#include "tests/files.h"
#include "tests/testing.h"
#include "weights/model_file.h"
#include "weights/snapshot_file.h"
#include "weights/array_file.h"
#include "weights/temporary_file.h"

namespace plait {
namespace {

using testing::Folder;
using testing::sentence;

Tensor big_tensor(Index rows) {
  return make_tensor({rows, 1024}, std::vector<float>(static_cast<std::size_t>(rows) * 1024, 1.0f));
}

void write_big(const std::string& path) {
  ModelWriter writer(path, testing::small_card(), "");
  for (const char* name : {"a", "b", "c", "d"}) writer.add("node", name, big_tensor(256));  // 1 MiB each
  writer.finish();
}

// Runs `f` in a child of its own, since limits cannot be taken back; true if it returned true and exited in
// order.
bool in_child(const std::function<bool()>& f) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    bool good = false;
    try {
      good = f();
    } catch (...) {
    }
    std::exit(good ? 0 : 1);  // with exit handlers: libhdf5's must not crash
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(Writer, DestroyedEarlyLeavesNothing) {
  const Folder folder;
  testing::write_bytes(folder / "m.h5", "what was there");
  {
    ModelWriter writer(folder / "m.h5", testing::small_card(), "");
    writer.add("node", "a", big_tensor(4));
    EXPECT_EQ(folder.names().size(), 2u);
  }
  {
    ArrayFile table(folder / "t.h5");
    table.add("x", std::vector<double>{1, 2});
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"m.h5"});
  EXPECT_EQ(testing::read_bytes(folder / "m.h5"), "what was there");
}

TEST(Writer, FileSizeLimitIsASentence) {
  const Folder folder;
  EXPECT_TRUE(in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{3 << 20, 3 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string text = sentence([&] { write_big(folder / "m.h5"); });
    return text.find(folder / "m.h5") != std::string::npos && text.find("MiB") != std::string::npos;
  }));
  EXPECT_TRUE(folder.names().empty());
}

TEST(Writer, FullDiskIsASentence) {
  const Folder folder;
  std::filesystem::create_directory(folder / "small");
  if (::mount("none", (folder / "small").c_str(), "tmpfs", 0, "size=4m") != 0)
    GTEST_SKIP() << "cannot mount a small disk";
  bool good = true;
  for (const int reserve_kib : {0, 1000, 2000, 3000, 3900}) {  // the disk fills at different moments
    testing::write_bytes(folder / "small/ballast",
                         std::string(static_cast<std::size_t>(reserve_kib) << 10, 'x'));
    good &= in_child([&] {
      const std::string text = sentence([&] { write_big(folder / "small/m.h5"); });
      return text.find(folder / "small/m.h5") != std::string::npos;
    });
    good &= !std::filesystem::exists(folder / "small/m.h5");
    good &= std::distance(std::filesystem::directory_iterator(folder / "small"), {}) == 1;
  }
  ::umount((folder / "small").c_str());
  EXPECT_TRUE(good);
}

TEST(Writer, FoldersThatCannotBeWritten) {
  const Folder folder;
  EXPECT_NE(sentence([&] { write_big(folder / "none/m.h5"); }).find("No such file"), std::string::npos);
  EXPECT_NE(sentence([&] { write_big(folder.path()); }).find("it is a folder"), std::string::npos);
  std::filesystem::create_directory(folder / "closed");
  std::filesystem::permissions(folder / "closed",
                               std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
  EXPECT_TRUE(in_child([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return false;
    return sentence([&] { write_big(folder / "closed/m.h5"); }).find("Permission denied") !=
           std::string::npos;
  }));
}

TEST(Writer, RefusesNamesTheReaderWouldRefuse) {
  const Folder folder;
  ModelWriter writer(folder / "m.h5", testing::small_card(), "");
  const Tensor tensor = big_tensor(1);
  for (const auto& [node, name] : {std::pair<std::string, std::string>{"", "w"},
                                   {"a..b", "w"},
                                   {"a", ""},
                                   {"a/b", "w"},
                                   {"a", "w.x"},
                                   {"tokenizer", "w"},
                                   {"a\nb", "w"},
                                   {"\xff", "w"}})
    EXPECT_NE(sentence([&, &node = node, &name = name] { writer.add(node, name, tensor); }), "")
        << node << " " << name;
  writer.add("a", "w", tensor);
  EXPECT_NE(sentence([&] { writer.add("a", "w", tensor); }).find("twice"), std::string::npos);
}

TEST(Writer, ReplacesTheFileASymbolicLinkPointsTo) {
  const Folder folder;
  std::filesystem::create_directory(folder / "real");
  testing::write_bytes(folder / "real/m.h5", "old");
  std::filesystem::create_symlink(folder / "real/m.h5", folder / "link.h5");
  testing::write_model(folder / "link.h5", testing::random_data(testing::small_card(), 1));
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link.h5"));
  EXPECT_EQ(sentence([&] { check_digest(folder / "real/m.h5"); }), "");
}

// At any moment: of files and folders made and committed without a pause, none is left half-way.
TEST(TemporaryFile, IsRemovedWhenTheProgramIsInterrupted) {
  const Folder folder;
  for (int round = 0; round < 100; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      for (const int signal : {SIGUSR1, SIGUSR2})
        std::signal(signal, [](int) {
          remove_temporary_files();
          ::raise(SIGUSR2);  // a second one, while the first is dealt with
          _exit(0);
        });
      ::alarm(10);  // ends a child that waits for itself
      for (;;) {
        TemporaryFile file(folder / "file");
        TemporaryFolder files(folder / cat("folder", round));
        files.add("a");
        files.add("b");
        file.commit();
        files.commit();
        std::filesystem::remove_all(folder / cat("folder", round));
      }
    }
    // Not before the child has its handler and works; then a little later in every round.
    while (!std::filesystem::exists(folder / "file")) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(37 * round));
    kill(child, SIGUSR1);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (const std::string& name : folder.names()) {
      ASSERT_EQ(name.find(".tmp"), std::string::npos) << name;
      std::filesystem::remove_all(folder / name);
    }
  }
}

TEST(ArrayFile, AShapeHoldsAsManyValuesAsAreGiven) {
  const Folder folder;
  ArrayFile arrays(folder / "t.h5");
  arrays.add("x", std::vector<double>{1, 2});
  const std::vector<float> six(6);
  arrays.add("y", {2, 3}, std::span<const float>(six));
  EXPECT_NE(sentence([&] { arrays.add("z", {2, 2}, std::span<const float>(six)); }).find("'z'"), std::string::npos);
}

TEST(FileKind, LooksAtSignaturesOnly) {
  const Folder folder;
  testing::write_model(folder / "m.h5", testing::random_data(testing::small_card(), 1));
  save_snapshot(folder / "s.h5", Snapshot{});
  testing::write_bytes(folder / "text",
                       "no file of plait's, but longer than a trailer, which has sixty-four bytes");
  testing::write_bytes(folder / "blocked.h5", std::string(1024, 'x') + testing::read_bytes(folder / "m.h5"));
  EXPECT_EQ(file_kind(folder / "m.h5"), FileKind::model);
  EXPECT_EQ(file_kind(folder / "blocked.h5"), FileKind::model);
  EXPECT_EQ(file_kind(folder / "s.h5"), FileKind::snapshot);
  EXPECT_EQ(file_kind(folder / "text"), FileKind::other);
  EXPECT_EQ(file_kind(folder.path()), FileKind::other);
  EXPECT_NE(sentence([&] { file_kind(folder / "none"); }).find("No such file"), std::string::npos);
}

}  // namespace
}  // namespace plait
