// Runs the program as a user does and keeps what it says.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/graph/config.h"

namespace plait::testing {

struct Outcome {
  int code = -1;  // exit code; 128 + signal when it was killed
  std::string out, error;
  Json json() const;  // standard output as JSON; fails the test if it is none
};

// Runs `shell_command` with $PLAIT naming the program, in a folder of its own that lives as long as the test
// program.
Outcome shell(const std::string& shell_command);
// The program with these arguments (a shell quotes them).
Outcome plait(const std::string& arguments);

const std::filesystem::path& folder();
std::string file(const std::string& name);  // in the folder
std::string read(const std::string& path);
void write(const std::string& path, const std::string& bytes);
bool exists(const std::string& name);
int count_files();  // in the folder

// Models every test may use, made by `plait new` on first use: small.h5 (f32) and narrow.h5 (bf16).
std::string small();
std::string narrow();
// 400 bytes of text: small.txt.
std::string text();

// Exit code 3 (or `code`), nothing on standard output, and one line `plait: error: ...` that holds `part`.
void expect_error(const Outcome& outcome, int code, const std::string& part);

}  // namespace plait::testing
