// Locks between processes by flock: they end with their holder, however that ends.
#pragma once

#include <sys/file.h>

#include <chrono>
#include <string>

namespace plait {

// Locks the open file `descriptor`, LOCK_SH or LOCK_EX, waiting for `patience` at most. False with errno if
// it cannot: EWOULDBLOCK where somebody else holds it, ENOLCK and others where the file system has no locks.
bool lock_file(int descriptor, int how, std::chrono::milliseconds patience);

// That nobody else writes a file which is open. Throws Error naming `path` and, where the system tells, the
// process that does. File systems without locks give none, and no error.
void lock_for_writing(int descriptor, const std::string& path);

// The same for a file that is replaced as a whole, through whatever link it is named: FILE.lock is locked,
// which exists as long as the lock. A FILE.lock that is not empty is no lock, and an Error.
class WriterLock {
 public:
  // Throws Error like lock_for_writing, or because it cannot be made.
  explicit WriterLock(const std::string& path);
  ~WriterLock();
  static std::string name_for(const std::string& path);  // FILE.lock
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  std::string name_;
  int descriptor_ = -1;
};

}  // namespace plait
