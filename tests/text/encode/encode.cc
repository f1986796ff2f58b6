// What tests/text/fuzz.py talks to: encodes and decodes strings in large batches.
//   text_encode FILE < strings > results
// FILE is a tokenizer.json or a tokenizer.model. A string is its length (u32, little-endian) and its bytes. A
// result is two lists of ids (with and without special tokens) and two texts (of the first list, with and
// without special tokens), each after its length. Ends with an error if the compiled tables of the tokenizer
// give other ids.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "runtime/base/error.h"
#include "runtime/text/tokenizer.h"

namespace plait {
namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class T>
void put(const T& list) {
  const auto size = static_cast<std::uint32_t>(list.size());
  std::fwrite(&size, sizeof size, 1, stdout);
  std::fwrite(list.data(), sizeof list[0], list.size(), stdout);
}

// Ids by the tokenizer from its file and by the one from compiled tables.
std::vector<Token> encode(const Tokenizer& tokenizer, const Tokenizer& compiled, const std::string& text,
                          Specials specials) {
  auto ids = tokenizer.encode(text, specials);
  if (compiled.encode(text, specials) != ids) fail("the compiled tables give other ids");
  return ids;
}

void serve(const Tokenizer& tokenizer, const Tokenizer& compiled) {
  std::uint32_t size = 0;
  std::string text;
  while (std::fread(&size, sizeof size, 1, stdin) == 1) {
    text.resize(size);
    if (std::fread(text.data(), 1, size, stdin) != size) return;
    const auto ids = encode(tokenizer, compiled, text, Specials::with);
    put(ids);
    put(encode(tokenizer, compiled, text, Specials::without));
    put(tokenizer.decode(ids));
    put(tokenizer.decode(ids, Specials::without));
  }
}

}  // namespace
}  // namespace plait

int main(int argc, char** argv) try {
  if (argc != 2) return 2;
  const std::filesystem::path path = argv[1];
  const auto name = path.extension() == ".model" ? "tokenizer.model" : "tokenizer.json";
  plait::TokenizerFiles files = {{name, plait::read_file(path)}};
  const auto tokenizer = plait::make_tokenizer(files, path.string());
  const std::string tables = plait::compile_tokenizer(files, path.string());
  if (!tables.empty()) files[plait::kCompiledTables] = tables;
  plait::serve(*tokenizer, *plait::make_tokenizer(files, path.string()));
} catch (const std::exception& error) {
  std::fprintf(stderr, "text_encode: %s\n", error.what());
  return 3;
}
