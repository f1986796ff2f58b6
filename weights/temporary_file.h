// Output files appear whole or not at all: written beside their place, flushed, renamed.
#pragma once

#include <string>
#include <vector>

namespace plait {

// The file a path names: absolute, and behind symbolic links, whether it is there or not.
std::string file_named(const std::string& path);

// Owns a file of a fresh name in the folder of `path` until commit() renames it to `path`; removed by the
// destructor otherwise. Where `path` is a symbolic link, the file it points to is the one replaced.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path);  // created empty; throws Error (no folder, no permission)
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }                // to write to
  const std::string& destination() const { return destination_; }  // as the caller named it
  void commit();  // flushes file and folder to the disk; throws Error
  void place();   // the same without flushing, for files that prove themselves when they are read

 private:
  std::string destination_, target_, path_;
  int slot_ = -1;
};

// The same for a folder of a few files: it appears whole or not at all. `path` must be absent or an empty
// folder.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& path);  // throws Error (not empty, no permission)
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  // Makes the empty file `name` in it and returns where to write to.
  std::string add(const std::string& name);
  const std::string& destination() const { return destination_; }  // as the caller named it
  void commit();  // flushes files and folder to the disk; throws Error

 private:
  std::string destination_, target_, path_;
  std::vector<std::string> files_;
  std::vector<int> slots_;
};

// Removes the temporary files and folders this process has open (the first 64) and lets it make and rename no
// more: it has to end next. Safe to call in a signal handler, in any thread.
void remove_temporary_files() noexcept;

// Removes the files that killed processes left half-written beside `path`. Nobody else may be writing it.
void remove_stale_temporaries(const std::string& path);

}  // namespace plait
