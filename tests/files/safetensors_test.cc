// safetensors files of others, good and bad, and plait's own.
#include "weights/safetensors.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/checkpoint.h"
#include "tests/files.h"
#include "tests/testing.h"

namespace plait {
namespace {

using namespace testing;
using namespace std::string_literals;

void expect_sentence(const std::string& text, const std::vector<std::string>& parts) {
  EXPECT_FALSE(text.empty()) << "nothing was refused; wanted: " << parts.front();
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks " << part;
}

TEST(Safetensors, ReadsEveryTensorWhereItLies) {
  const Folder folder;
  const Checkpoint c = tiny_qwen3_5(Tie::own);
  write_bytes(folder / "m.safetensors", safetensors_bytes(c.tensors));
  const Safetensors file = Safetensors::open(folder / "m.safetensors");
  ASSERT_EQ(file.tensors().size(), c.tensors.size());
  for (const auto& [name, tensor] : c.tensors) {
    const auto& entry = file.tensors().at(name);
    EXPECT_EQ(entry.type, tensor.type);
    EXPECT_EQ(entry.shape, tensor.shape);
    const std::string bytes(reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size());
    EXPECT_EQ(bytes, tensor.bytes) << name;
    Safetensors::release(entry);  // comes back when it is read again
    EXPECT_EQ(std::memcmp(entry.bytes.data(), tensor.bytes.data(), tensor.bytes.size()), 0) << name;
  }
  EXPECT_EQ(Safetensors::dtype_of("lm_head.weight", file.tensors().at("lm_head.weight")), DType::bf16);
  const auto& ids = file.tensors().at("model.visual.position_ids");
  expect_sentence(sentence([&] { Safetensors::dtype_of("model.visual.position_ids", ids); }),
                  {"I64", "position_ids"});
}

TEST(Safetensors, EmptyTensorsAndScalarsAndMetadata) {
  const Folder folder;
  write_bytes(folder / "m.safetensors",
              safetensors_bytes(
                  R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},
                                   "b":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   )",
                  "\0\0\x80\x3f"s));
  const Safetensors file = Safetensors::open(folder / "m.safetensors");
  EXPECT_EQ(file.tensors().at("a").shape, (Shape{0, 7}));
  EXPECT_EQ(file.tensors().at("b").bytes.size(), 4u);
  write_bytes(folder / "none.safetensors", safetensors_bytes("{}", ""));
  EXPECT_TRUE(Safetensors::open(folder / "none.safetensors").tensors().empty());
}

TEST(Safetensors, WritesWhatItReads) {
  const Folder folder;
  const auto write = [&](const std::string& name, std::vector<SafetensorsWriter::Item> items) {
    write_bytes(folder / name, "");
    SafetensorsWriter writer(folder / name, name, std::move(items));
    for (const auto& item : writer.order()) {
      const std::string bytes(static_cast<std::size_t>(element_count(item.shape)) * bytes_of(item.dtype),
                              item.name.back());
      writer.append(std::as_bytes(std::span(bytes)));
    }
    writer.finish();
    return read_bytes(folder / name);
  };
  const std::vector<SafetensorsWriter::Item> items = {{"a", DType::bf16, {3}},
                                                      {"b", DType::f32, {2, 5}},
                                                      {"c", DType::f16, {1, 1, 7}},
                                                      {"d", DType::f32, {1}}};
  const std::string bytes = write("m.safetensors", items);
  EXPECT_EQ(write("n.safetensors", {items.rbegin(), items.rend()}), bytes)
      << "the order of items does not matter";
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  EXPECT_EQ((header + 8) % 64, 0u);
  const Safetensors file = Safetensors::open(folder / "m.safetensors");
  for (const auto& item : items) {
    const auto& entry = file.tensors().at(item.name);
    EXPECT_EQ(entry.shape, item.shape);
    EXPECT_EQ(Safetensors::dtype_of(item.name, entry), item.dtype);
    for (const std::byte b : entry.bytes) EXPECT_EQ(static_cast<char>(b), item.name.back());
  }
  EXPECT_NE(sentence([&] {
              write("q.safetensors", {{"q", DType::q8, {32}}});
            }).find("q8"),
            std::string::npos);
}

struct BadHeader {
  const char* header;
  std::size_t data_bytes;
  std::vector<std::string> parts;
};

TEST(Safetensors, BadHeadersAreSentences) {
  const std::vector<BadHeader> cases = {
      {R"([])", 0, {"does not begin"}},
      {R"( {})", 0, {"does not begin"}},
      {"", 0, {"does not begin"}},
      {R"({"a":)", 0, {"not valid JSON"}},
      {"{\"a\xff\":1}", 0, {"UTF-8"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4,
       {"'a' twice"}},
      {R"({"a":7})", 4, {"'a'", "7"}},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, {"'a'", "data_offsets"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4, {"'a'", "x"}},
      {R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, {"'a'", "F33"}},
      {R"({"a":{"dtype":3,"shape":[1],"data_offsets":[0,4]}})", 4, {"'a'", "dtype"}},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, {"'a'", "-1"}},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, {"'a'", "1.0"}},
      {R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4, {"'a'", "shape"}},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})",
       4,
       {"'a'", "9 dimensions"}},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})",
       0,
       {"'a'", "counted"}},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})",
       4,
       {"'a'", "impossible"}},
      {R"({"a":{"dtype":"F32","shape":[99999999999999999999999],"data_offsets":[0,4]}})", 4, {"'a'"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, {"'a'", "two numbers"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, {"'a'", "-4"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, {"'a'", "[4, 0)"}},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, {"'a'", "[0, 8)", "4 bytes"}},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, {"'a'", "4 bytes", "[2]", "8"}},
      {R"({"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
       6,
       {"'b'", "2", "multiple of the 4"}},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       12,
       {"'a' and 'b'", "overlap", "8", "4"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
       12,
       {"4 to 8", "'b'"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, {"0 to 4", "'a'"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 9, {"ends at 4", "9 bytes"}},
      {R"({"__metadata__":[]})", 0, {"__metadata__"}},
  };
  const Folder folder;
  for (const BadHeader& bad : cases) {
    SCOPED_TRACE(bad.header);
    write_bytes(folder / "bad.safetensors", safetensors_bytes(bad.header, std::string(bad.data_bytes, '\1')));
    auto parts = bad.parts;
    parts.push_back(folder / "bad.safetensors");
    expect_sentence(sentence([&] { Safetensors::open(folder / "bad.safetensors"); }), parts);
  }
}

TEST(Safetensors, CutAnywhereIsASentence) {
  const Folder folder;
  const std::string bytes = safetensors_bytes(tiny_qwen2(Tie::tied).tensors);
  for (std::size_t length = 0; length < bytes.size(); length += length < 200 ? 1 : bytes.size() / 50) {
    write_bytes(folder / "cut.safetensors", bytes.substr(0, length));
    expect_sentence(sentence([&] { Safetensors::open(folder / "cut.safetensors"); }),
                    {folder / "cut.safetensors"});
  }
  write_bytes(folder / "long.safetensors", bytes + "x");
  expect_sentence(sentence([&] { Safetensors::open(folder / "long.safetensors"); }), {"ends at"});
  std::string lying = bytes;
  lying.replace(0, 8, "\xff\xff\xff\xff\xff\xff\xff\x7f");
  write_bytes(folder / "lying.safetensors", lying);
  expect_sentence(sentence([&] { Safetensors::open(folder / "lying.safetensors"); }),
                  {"9223372036854775807", "16777216"});
}

// ---- Shards

class Shards : public ::testing::Test {
 protected:
  std::string refused() const {
    return sentence([&] { Safetensors::open_folder(folder_.path()); });
  }
  Json index() const { return Json::parse(read_bytes(folder_ / "model.safetensors.index.json")); }
  void set_index(const Json& json) { write_bytes(folder_ / "model.safetensors.index.json", json.dump()); }

  void SetUp() override { checkpoint_.write_shards(folder_.path(), 3); }
  const Checkpoint checkpoint_ = tiny_qwen2(Tie::own);
  const Folder folder_;
};

TEST_F(Shards, AreReadAsOne) {
  const Safetensors all = Safetensors::open_folder(folder_.path());
  ASSERT_EQ(all.tensors().size(), checkpoint_.tensors.size());
  for (const auto& [name, tensor] : checkpoint_.tensors)
    EXPECT_EQ(std::memcmp(all.tensors().at(name).bytes.data(), tensor.bytes.data(), tensor.bytes.size()), 0)
        << name;
}

TEST_F(Shards, AMissingShard) {
  std::filesystem::remove(folder_ / "model-1.safetensors");
  expect_sentence(refused(), {"model-1.safetensors", "No such file"});
}

TEST_F(Shards, AnIndexThatLies) {
  Json json = index();
  json["weight_map"]["ghost.weight"] = "model-0.safetensors";
  set_index(json);
  expect_sentence(refused(), {"ghost.weight", "model-0.safetensors"});
  json = index();
  json["weight_map"].erase("ghost.weight");
  json["weight_map"]["lm_head.weight"] = json["weight_map"]["lm_head.weight"] == "model-0.safetensors"
                                             ? "model-1.safetensors"
                                             : "model-0.safetensors";
  set_index(json);
  expect_sentence(refused(), {"lm_head.weight"});
  json["weight_map"].erase("lm_head.weight");
  set_index(json);
  expect_sentence(refused(), {"lm_head.weight", "does not list"});
}

TEST_F(Shards, AnIndexOutOfItsFolder) {
  for (const char* name : {"../model-0.safetensors", "/etc/passwd", "..", "", "a\nb"}) {
    Json json = index();
    json["weight_map"]["lm_head.weight"] = name;
    set_index(json);
    expect_sentence(refused(), {"no plain file name"});
  }
}

TEST_F(Shards, BadIndexes) {
  for (const char* text :
       {"", "[]", "{}", R"({"weight_map": 1})", R"({"weight_map": {"a": 1}})", "{\"weight_map\":"}) {
    write_bytes(folder_ / "model.safetensors.index.json", text);
    expect_sentence(refused(), {"model.safetensors.index.json"});
  }
}

TEST_F(Shards, ATensorInTwoShards) {
  PublishedTensors more = parse_safetensors(read_bytes(folder_ / "model-1.safetensors"));
  const auto other = parse_safetensors(read_bytes(folder_ / "model-0.safetensors"));
  more.insert(*other.begin());
  write_bytes(folder_ / "model-1.safetensors", safetensors_bytes(more));
  expect_sentence(refused(), {other.begin()->first, "model-0.safetensors", "model-1.safetensors"});
}

TEST_F(Shards, NeitherOrBoth) {
  write_bytes(folder_ / "model.safetensors", safetensors_bytes(checkpoint_.tensors));
  expect_sentence(refused(), {"both"});
  std::filesystem::remove(folder_ / "model.safetensors");
  std::filesystem::remove(folder_ / "model.safetensors.index.json");
  expect_sentence(refused(), {"neither", folder_.path()});
}

}  // namespace
}  // namespace plait
