// Model files made by other hands, with HDF5's own calls and its default (oldest) structures.
#pragma once

#include <gtest/gtest.h>
#include <hdf5.h>

#include <string>
#include <vector>

#include "tests/files.h"

namespace plait::testing {

// A model file under construction by somebody else.
class Foreign {
 public:
  explicit Foreign(const std::string& path, hsize_t user_block = 0) {
    const hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_userblock(creation, user_block);
    file_ = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, H5P_DEFAULT);
    H5Pclose(creation);
    number("/", "plait_format", 1);
    text("/", "card", small_card().dump());
  }
  ~Foreign() { H5Fclose(file_); }

  struct Options {
    hid_t type = H5T_IEEE_F32LE;
    std::vector<hsize_t> chunk = {};
    bool gzip = false, write = true;
    std::string external = {};
  };
  void tensor(const std::string& path, const std::vector<hsize_t>& sizes, const std::vector<float>& values,
              const Options& options) {
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE), links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    if (!options.chunk.empty()) H5Pset_chunk(list, static_cast<int>(sizes.size()), options.chunk.data());
    if (options.gzip) H5Pset_deflate(list, 6);
    if (!options.external.empty()) H5Pset_external(list, options.external.c_str(), 0, H5F_UNLIMITED);
    const hid_t space = H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
    const hid_t set = H5Dcreate2(file_, path.c_str(), options.type, space, links, list, H5P_DEFAULT);
    EXPECT_GE(set, 0);
    const auto write = [&] {
      return H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    };
    EXPECT_TRUE(!options.write || write() >= 0);
    H5Dclose(set), H5Sclose(space), H5Pclose(list), H5Pclose(links);
  }
  void number(const std::string& object, const char* name, std::int64_t value) {
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attr = H5Acreate_by_name(file_, object.c_str(), name, H5T_STD_I64LE, space, 0, 0, 0);
    H5Awrite(attr, H5T_NATIVE_INT64, &value);
    H5Aclose(attr), H5Sclose(space);
  }
  // Fixed length, as many tools write it.
  void text(const std::string& object, const char* name, const std::string& value) {
    const hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, value.size());
    const hid_t attr = H5Acreate_by_name(file_, object.c_str(), name, type, space, 0, 0, 0);
    EXPECT_GE(H5Awrite(attr, type, value.data()), 0);
    H5Aclose(attr), H5Sclose(space), H5Tclose(type);
  }
  void replace_text(const char* name, const std::string& value) {
    H5Adelete(file_, name);
    text("/", name, value);
  }
  hid_t id() const { return file_; }

 private:
  hid_t file_;
};

}  // namespace plait::testing
