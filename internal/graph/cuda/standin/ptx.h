// What a module of PTX says about its kernels.
#pragma once

#include <string>
#include <vector>

// PtxEntry is one kernel. Sizes are bytes; what the source does not say is 0.
struct PtxEntry {
  std::string name;
  size_t parameters;       // how many
  size_t parameter_bytes;  // of all of them
  size_t static_shared;
  unsigned max_threads;
  unsigned min_blocks;
};

struct Ptx {
  int version;  // 80 for 8.0
  int target;   // 80 for sm_80
  bool exact;   // for no other architecture, as sm_90a is
  std::vector<PtxEntry> entries;
};

// parse_ptx reads a module. Where that is impossible, error says why and the result is undefined.
Ptx parse_ptx(const std::string& source, std::string& error);
