// Token texts back to text, one token at a time. What has come out is the beginning of the whole.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace plait {

// One stage at work on one stream of tokens.
class DecoderStage {
 public:
  using Emit = std::function<void(std::string)>;
  virtual ~DecoderStage() = default;
  virtual void push(std::string token, const Emit& emit) = 0;
  virtual void finish(const Emit&) {}
};

// Immutable; shared by threads.
class Decoder {
 public:
  // null joins tokens with spaces. Throws Error naming `where` for what this plait does not know.
  Decoder(const nlohmann::json& json, const std::string& where);

  // A stream at work: tokens' texts in, text out, well-formed UTF-8.
  class Stream {
   public:
    explicit Stream(std::vector<std::unique_ptr<DecoderStage>> stages) : stages_(std::move(stages)) {}
    std::string push(std::string_view token);
    std::string finish();

   private:
    void feed(std::size_t stage, std::string token, std::string& out);
    std::vector<std::unique_ptr<DecoderStage>> stages_;
    std::size_t read_ = 0;  // bytes so far
  };
  Stream stream() const;

  // The bytes a token adds behind others; not necessarily whole characters.
  std::string piece(std::string_view token) const;

 private:
  using Factory = std::function<std::unique_ptr<DecoderStage>()>;
  void add(const nlohmann::json& json, const std::string& where);
  void add_stage(const std::string& type, class JsonObject& object);
  // `joins`: all that comes out is one token, in parts.
  void append(Factory factory, bool joins);

  std::vector<Factory> stages_;
  bool joined_ = false, byte_level_ = false, byte_fallback_ = false;
};

}  // namespace plait
