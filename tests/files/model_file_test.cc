// Models written and read back: every dtype and layout, files of foreign hands, and the sentences of
// refusals.
#include "weights/model_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "runtime/base/digest.h"
#include "runtime/base/half.h"
#include "runtime/base/panel.h"
#include "tests/files.h"
#include "tests/files/foreign.h"
#include "tests/testing.h"

namespace plait {
namespace {

using testing::Folder;
using testing::Foreign;
using testing::sentence;

template <class Half>
Tensor half_rows(const Shape& shape, DType dtype, const std::vector<Half>& values) {
  auto owner = std::make_shared<std::vector<Half>>(values);
  return {shape, dtype, Layout::rows, owner, owner->data(), owner->size() * sizeof(Half)};
}

bool mapped(const Tensor& tensor, const std::vector<Tensor>& others) {
  for (const Tensor& other : others)
    if (tensor.owner != other.owner) return false;
  return true;
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << "says: " << (text)

// -- Round trips

TEST(ModelFile, KeepsEveryDtypeAndLayoutBitForBit) {
  const Folder folder;
  testing::Numbers numbers(1);
  ModelData data;
  data.card = testing::small_card();
  data.source = "a test, \xc3\xa9t\xc3\xa9";
  for (const auto& [out, in] : {std::pair<Index, Index>{1, 1}, {33, 7}, {64, 64}, {31, 130}}) {
    const Tensor rows = make_tensor({out, in}, numbers.normals(out * in));
    const std::string node = cat("blocks.", out, ".mixer");
    std::vector<bf16> narrow;
    std::vector<f16> half;
    for (const float v : to_float(rows)) narrow.push_back(to_bf16(v)), half.push_back(to_f16(v));
    data.tensors[node] = {{"rows", rows},
                          {"panels", pack(rows, DType::f32)},
                          {"narrow_panels", pack(rows, DType::bf16)},
                          {"narrow_rows", half_rows({out, in}, DType::bf16, narrow)},
                          {"half_rows", half_rows({out, in}, DType::f16, half)},
                          {"vector", make_tensor({out}, numbers.normals(out))},
                          {"cube", make_tensor({2, out, in}, numbers.normals(2 * out * in))}};
  }
  data.tokenizer = {{"tokenizer.json", std::string("{\"a\":\0}", 7)}, {"empty", ""}};
  const std::string digest = testing::write_model(folder / "m.h5", data);
  const ModelData back = read_model_file(folder / "m.h5");
  EXPECT_TRUE(testing::same_tensors(data, back));
  EXPECT_EQ(back.card, data.card);
  EXPECT_EQ(back.source, data.source);
  EXPECT_EQ(back.tokenizer, data.tokenizer);
  EXPECT_EQ(back.digest, digest);
  EXPECT_EQ(back.origin, folder / "m.h5");
  EXPECT_NO_THROW(check_digest(folder / "m.h5"));
  // All tensors lie in the one mapping, each on a 64-byte boundary.
  const Tensor& first = back.tensors.begin()->second.begin()->second;
  for (const auto& [node, tensors] : back.tensors)
    for (const auto& [name, tensor] : tensors) {
      EXPECT_TRUE(mapped(tensor, {first})) << node << "." << name;
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data) % 64, 0u) << node << "." << name;
    }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"m.h5"});
}

TEST(ModelFile, SameContentsGiveTheSameFile) {
  const Folder folder;
  const ModelData data = testing::random_data(testing::small_card(), 3);
  testing::write_model(folder / "a.h5", data);
  testing::write_model(folder / "b.h5", data);
  EXPECT_EQ(testing::read_bytes(folder / "a.h5"), testing::read_bytes(folder / "b.h5"));
}

TEST(ModelFile, DigestIsDefinedByPathsAndBytesNotByTheOrderOfWriting) {
  const Folder folder;
  const Tensor x = make_tensor({2}, std::vector<float>{1, 2}),
               y = make_tensor({1, 2}, std::vector<float>{3, 4});
  const auto write = [&](const char* name, bool turned) {
    ModelWriter writer(folder / name, testing::small_card(), "");
    if (turned) writer.add("a.b", "y", y);
    writer.add("a.b.c", "x", x);
    if (!turned) writer.add("a.b", "y", y);
    return writer.finish();
  };
  std::string text = "/a/b/c/x\nf32 vector 2\n";
  text.append(static_cast<const char*>(x.data), 8);
  text += "/a/b/y\nf32 rows 1x2\n";
  text.append(static_cast<const char*>(y.data), 8);
  EXPECT_EQ(write("1.h5", false), sha256(text));
  EXPECT_EQ(write("2.h5", true), sha256(text));
}

TEST(ModelFile, RunsFromTheFileAsFromMemory) {
  const Folder folder;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const ModelData data = testing::random_data(testing::small_card(), 5, dtype);
    testing::write_model(folder / "m.h5", data);
    const auto model = load(folder / "m.h5");
    const std::vector<Token> tokens = testing::Numbers(2).tokens(20, 97);
    Stream from_file(model), from_memory(std::make_shared<const Model>(data));
    EXPECT_TRUE(testing::same_bits(from_file.feed(tokens), from_memory.feed(tokens)));
  }
}

TEST(ModelFile, LivesOnWhenItsFileIsReplaced) {
  const Folder folder;
  const ModelData old = testing::random_data(testing::small_card(), 1);
  testing::write_model(folder / "m.h5", old);
  const ModelData held = read_model_file(folder / "m.h5");
  testing::write_model(folder / "m.h5", testing::random_data(testing::small_card(), 2));
  EXPECT_TRUE(testing::same_tensors(held, old));
}

// -- Foreign files, written with HDF5's own calls

const std::vector<float> kSix = {1.5f, -2, 3e-30f, 0.1f, -0.0f, 6};

std::string read_six(const std::string& path) {
  const ModelData data = read_model_file(path);
  const Tensor& tensor = data.tensors.at("a.b").at("w");
  EXPECT_EQ(tensor.shape, (Shape{2, 3}));
  EXPECT_EQ(tensor.layout, Layout::rows);
  EXPECT_TRUE(testing::same_bits(to_float(tensor), kSix));
  EXPECT_EQ(data.digest.size(), 64u);
  return data.digest;
}

TEST(ForeignFile, IsReadHoweverItsRowsAreStored) {
  const Folder folder;
  const auto six = [&](const char* name, const Foreign::Options& options, hsize_t user_block = 0) {
    Foreign(folder / name, user_block).tensor("/a/b/w", {2, 3}, kSix, options);
    return read_six(folder / name);
  };
  const std::string digest = six("plain.h5", {});
  EXPECT_EQ(six("chunks.h5", {.chunk = {1, 2}}), digest);
  EXPECT_EQ(six("gzip.h5", {.chunk = {2, 3}, .gzip = true}), digest);
  EXPECT_EQ(six("big_endian.h5", {.type = H5T_IEEE_F32BE}), digest);
  EXPECT_EQ(six("user_block.h5", {}, 1024), digest);
  EXPECT_EQ(six("external.h5", {.external = folder / "external.raw"}), digest);
}

TEST(ForeignFile, NeverWrittenDatasetsAreZeros) {
  const Folder folder;
  for (const hsize_t user_block : {hsize_t{0}, hsize_t{512}}) {
    Foreign(folder / "m.h5", user_block).tensor("/a/b/w", {2, 3}, kSix, {.write = false});
    const ModelData data = read_model_file(folder / "m.h5");
    EXPECT_EQ(to_float(data.tensors.at("a.b").at("w")), std::vector<float>(6, 0.0f));
  }
}

TEST(ForeignFile, LargeTensorsAreReadPieceByPiece) {
  const Folder folder;
  const hsize_t rows = 1500, cols = 1000;  // 6 MB: more than one piece, chunks that do not divide it
  const std::vector<float> values = testing::Numbers(4).normals(static_cast<Index>(rows * cols));
  {
    Foreign file(folder / "m.h5");
    file.tensor("/a/b/chunks", {rows, cols}, values, {.chunk = {7, 333}});
    file.tensor("/a/b/swapped", {rows, cols}, values, {.type = H5T_IEEE_F32BE});
    file.tensor("/a/b/deep", {3, 500, 1000}, values, {.chunk = {1, 499, 1000}, .gzip = true});
    file.tensor("/a/b/wide", {rows * cols}, values, {.chunk = {1000001}});
  }
  const ModelData data = read_model_file(folder / "m.h5");
  for (const auto& [name, tensor] : data.tensors.at("a.b"))
    EXPECT_TRUE(testing::same_bits(to_float(tensor), values)) << name;
}

TEST(ForeignFile, HalvesOfEitherByteOrderAreRawBits) {
  const Folder folder;
  const hid_t big_half = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(big_half, 15, 10, 5, 0, 10);
  H5Tset_size(big_half, 2);
  H5Tset_ebias(big_half, 15);
  H5Tset_order(big_half, H5T_ORDER_BE);
  Foreign(folder / "m.h5").tensor("/a/b/w", {2, 3}, kSix, {.type = big_half});
  H5Tclose(big_half);
  const ModelData data = read_model_file(folder / "m.h5");
  const Tensor& tensor = data.tensors.at("a.b").at("w");
  EXPECT_EQ(tensor.dtype, DType::f16);
  std::vector<float> want;
  for (const float v : kSix) want.push_back(to_float(to_f16(v)));
  EXPECT_TRUE(testing::same_bits(to_float(tensor), want));
}

// -- Refusals

std::string refusal(const std::string& path, const std::function<void(Foreign&)>& spoil) {
  {
    Foreign file(path);
    spoil(file);
  }
  const std::string text = sentence([&] { read_model_file(path); });
  EXPECT_SAYS(text, path);
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  return text;
}

TEST(Refusals, NameTheDatasetAndBothValues) {
  const Folder folder;
  const std::string path = folder / "m.h5";
  const auto with_tensor = [&](const std::function<void(Foreign&)>& spoil,
                               const Foreign::Options& options = {}) {
    return refusal(path, [&](Foreign& file) {
      file.tensor("/a/b/w", {2, 3}, kSix, options);
      spoil(file);
    });
  };
  std::string text = with_tensor([](Foreign& f) { f.text("/a/b/w", "encoding", "bf16"); });
  EXPECT_SAYS(text, "'/a/b/w'");
  EXPECT_SAYS(text, "bf16");
  EXPECT_SAYS(text, "f32");
  for (const char* encoding : {"q8", "q4"})
    EXPECT_SAYS(with_tensor([&](Foreign& f) { f.text("/a/b/w", "encoding", encoding); }), encoding);
  EXPECT_SAYS(with_tensor([](Foreign& f) { f.text("/a/b/w", "layout", "tiles"); }), "'tiles'");
  EXPECT_SAYS(with_tensor([](Foreign& f) { f.text("/a/b/w", "layout", "panels"); }), "[1, 3, 32]");
  EXPECT_SAYS(with_tensor([](Foreign& f) { f.number("/a/b/w", "shape", 6); }), "[6]");
  EXPECT_SAYS(with_tensor([](Foreign& f) { f.text("/a/b/w", "shape", "2 x 3"); }), "must be integers");
  EXPECT_SAYS(with_tensor([](Foreign&) {}, {.type = H5T_IEEE_F64LE}), "64-bit float");
  EXPECT_SAYS(with_tensor([](Foreign&) {}, {.type = H5T_STD_I32LE}), "32-bit signed integer");
  EXPECT_SAYS(with_tensor([](Foreign&) {}, {.write = false, .external = folder / "absent/raw"}), "'/a/b/w'");
  EXPECT_SAYS(refusal(path, [](Foreign& f) { f.tensor("/w", {2}, kSix, {}); }), "'/w'");
  EXPECT_SAYS(refusal(path, [](Foreign& f) { f.tensor("/a.b/w", {2}, kSix, {}); }), "dot");
  EXPECT_SAYS(refusal(path, [](Foreign& f) { f.tensor("/a/w\n\x1b[2J", {2}, kSix, {}); }), "w\\x0a\\x1b[2J");
  EXPECT_SAYS(refusal(path, [](Foreign& f) { f.tensor("/tokenizer/vocab", {2}, kSix, {}); }), "8-bit");
}

TEST(Refusals, LinksThatLeaveOrLoop) {
  const Folder folder;
  const std::string path = folder / "m.h5";
  const auto linked = [&](const std::function<void(hid_t)>& link) {
    return refusal(path, [&](Foreign& f) {
      f.tensor("/a/b/w", {2, 3}, kSix, {});
      link(f.id());
    });
  };
  EXPECT_SAYS(linked([](hid_t f) { H5Lcreate_soft("/a/b/w", f, "/a/soft", 0, 0); }), "'soft'");
  EXPECT_SAYS(linked([](hid_t f) { H5Lcreate_external("/etc/passwd", "/", f, "/a/out", 0, 0); }), "'out'");
  EXPECT_SAYS(linked([](hid_t f) { H5Lcreate_hard(f, "/a", f, "/a/b/again", 0, 0); }), "reached twice");
}

TEST(Refusals, TheCardIsCheckedBeforeItIsBelieved) {
  const Folder folder;
  const std::string path = folder / "m.h5";
  const auto card = [&](const std::string& text) {
    return refusal(path, [&](Foreign& f) { f.replace_text("card", text); });
  };
  EXPECT_SAYS(card("{\"name\": "), "not valid JSON");
  EXPECT_SAYS(card("[1]"), "must be a JSON object");
  EXPECT_SAYS(card("{\"name\":\"\xff\"}"), "UTF-8");
  EXPECT_SAYS(card(std::string("{}\0{}", 5)), "NUL");
  EXPECT_SAYS(card(std::string(60000, '[')), "nested");
  EXPECT_SAYS(card("{\"a\":1,\"b\":{\"a\":1},\"a\":2}"), "'a' twice");
}

TEST(Refusals, OtherFilesAndVersions) {
  const Folder folder;
  const std::string path = folder / "m.h5";
  EXPECT_SAYS(sentence([&] { read_model_file(folder / "none.h5"); }), "No such file");
  EXPECT_SAYS(sentence([&] { read_model_file(folder.path()); }), "not a regular file");
  testing::write_bytes(path, "");
  EXPECT_SAYS(sentence([&] { read_model_file(path); }), "not an HDF5 file");
  testing::write_bytes(path, std::string(5000, 'x'));
  EXPECT_SAYS(sentence([&] { read_model_file(path); }), "not an HDF5 file");
  std::string text = refusal(path, [](Foreign& f) {
    H5Adelete(f.id(), "plait_format");
    f.number("/", "plait_format", 7);
  });
  EXPECT_SAYS(text, "plait_format 7");
  EXPECT_SAYS(text, "plait_format 1");
  EXPECT_SAYS(refusal(path, [](Foreign& f) { H5Adelete(f.id(), "plait_format"); }), "not a plait model");
  EXPECT_SAYS(refusal(path, [](Foreign& f) { H5Adelete(f.id(), "card"); }), "'card'");
  EXPECT_SAYS(refusal(path, [](Foreign& f) { f.text("/", "sha256", "abc"); }), "'abc'");
  EXPECT_SAYS(refusal(path, [](Foreign& f) { f.number("/", "plait_snapshot", 1); }), "snapshot");
}

TEST(Refusals, MoreMemoryThanThereIs) {
  const Folder folder;
  const std::string path = folder / "m.h5";
  // A few kilobytes that claim 4 TB, and more than any number of bytes.
  std::string text = refusal(path, [](Foreign& f) {
    f.tensor("/a/b/w", {1000000, 1000000}, {}, {.chunk = {1000, 1000}, .write = false});
  });
  EXPECT_SAYS(text, "7.3 TiB of memory");  // read, and packed
  EXPECT_SAYS(text, "available");
  text = refusal(path, [](Foreign& f) {
    const hsize_t huge = hsize_t{1} << 40;
    f.tensor("/a/b/w", {huge, huge}, {}, {.chunk = {1000, 1000}, .write = false});
  });
  EXPECT_SAYS(text, "larger than any file");
  text = refusal(path, [](Foreign& f) {
    f.tensor("/a/b/w", {20000, 20000}, {}, {.chunk = {20000, 20000}, .write = false});
  });
  EXPECT_SAYS(text, "chunks of 1.5 GiB");
}

TEST(Refusals, ModelsWhoseTensorsDoNotFit) {
  const Folder folder;
  const std::string path = folder / "m.h5";
  const auto loaded = [&](const std::function<void(ModelData&)>& spoil) {
    ModelData data = testing::random_data(testing::small_card(), 1);
    spoil(data);
    testing::write_model(path, data);
    return sentence([&] { load(path); });
  };
  EXPECT_EQ(loaded([](ModelData&) {}), "");
  std::string text = loaded([](ModelData& d) { d.tensors["blocks.0.mixer"].erase("up"); });
  EXPECT_SAYS(text, "blocks.0.mixer");
  EXPECT_SAYS(text, "'up'");
  text = loaded(
      [](ModelData& d) { d.tensors["blocks.0.mixer"]["surplus"] = make_tensor({1}, std::vector<float>{1}); });
  EXPECT_SAYS(text, "surplus");
  text = loaded([](ModelData& d) { d.tensors["elsewhere"]["w"] = make_tensor({1}, std::vector<float>{1}); });
  EXPECT_SAYS(text, "elsewhere");
  text = loaded([](ModelData& d) {
    d.tensors["final_norm"]["weight"] = make_tensor({65}, std::vector<float>(65, 1.0f));
  });
  EXPECT_SAYS(text, "[65]");
  EXPECT_SAYS(text, "[64]");
  text = loaded([](ModelData& d) { d.card["surprise"] = 1; });
  EXPECT_SAYS(text, "surprise");
  text = loaded([](ModelData& d) { d.card["graph"][2]["surprise"] = 1; });
  EXPECT_SAYS(text, "surprise");
  text = loaded([](ModelData& d) { d.card["width"] = 32; });
  EXPECT_NE(text, "");
}

// -- The digest

TEST(CheckDigest, FindsOneChangedBit) {
  const Folder folder;
  const std::string path = folder / "m.h5";
  const ModelData data = testing::random_data(testing::small_card(), 1);
  testing::write_model(path, data);
  std::string bytes = testing::read_bytes(path);
  const Tensor& tensor = data.tensors.at("blocks.0.mixer").at("up");
  const std::string stored(static_cast<const char*>(tensor.data), tensor.bytes);
  const std::size_t at = bytes.find(stored);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 17] = static_cast<char>(bytes[at + 17] ^ 4);
  testing::write_bytes(path, bytes);
  EXPECT_NO_THROW(read_model_file(path));  // trusting; the digest is for `inspect --check`
  EXPECT_SAYS(sentence([&] { check_digest(path); }), "SHA-256");
}

TEST(CheckDigest, NeedsOneToCompareWith) {
  const Folder folder;
  Foreign(folder / "m.h5").tensor("/a/b/w", {2, 3}, kSix, {});
  EXPECT_SAYS(sentence([&] { check_digest(folder / "m.h5"); }), "no digest");
}

}  // namespace
}  // namespace plait
