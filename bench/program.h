// What the benchmark programs share: flags and the clock.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>

#include "runtime/base/parallel.h"

namespace plait {

// Flags of every benchmark. --smoke: the smallest sizes, once, for CI.
struct BenchFlags {
  int threads = available_threads();
  Index repeat = 5;
  bool smoke = false;

  void add_to(CLI::App& app) {
    app.add_option("--threads", threads, "Threads")->check(CLI::Range(1, 4096))->capture_default_str();
    app.add_option("--repeat", repeat, "Repetitions; the best counts")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_flag("--smoke", smoke, "Smallest sizes, once: does it still run?");
  }
};

template <class F>
double seconds(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Parses the flags, runs, and turns an exception into one line and exit code 1.
template <class Body>
int run_bench(CLI::App& app, int argc, char** argv, Body&& body) {
  CLI11_PARSE(app, argc, argv);
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), error.what());
    return 1;
  }
}

}  // namespace plait
