#include "module.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>

#include "call.h"
#include "device.h"
#include "ptx.h"
#include "settings.h"
#include "worker.h"

// The kernels by name. They register before main, in no particular order.
static std::map<std::string, Kernel>& kernels() {
  static auto* all = new std::map<std::string, Kernel>;
  return *all;
}

void register_kernel(const Kernel& kernel) {
  if (!kernels().emplace(kernel.name, kernel).second) {
    die_in_driver("two kernels are named %s", kernel.name);
  }
}

struct Module {
  std::map<std::string, Function> functions;
};

static std::set<Module*>& modules() {
  static auto* all = new std::set<Module*>;
  return *all;
}

bool is_function(const Function* function) {
  for (const Module* m : modules()) {
    for (const auto& [name, f] : m->functions) {
      if (&f == function) {
        return true;
      }
    }
  }
  return false;
}

static std::string format(const char* text, ...) __attribute__((format(printf, 1, 2)));
static std::string format(const char* text, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, text);
  vsnprintf(line, sizeof line, text, arguments);
  va_end(arguments);
  return line;
}

// check_entry compares a kernel of the PTX with the one compiled for the CPU and with what the real assembler
// checks; the result is empty or says what is wrong.
static std::string check_entry(const PtxEntry& e) {
  const size_t max_parameter_bytes = 4096;
  const auto found = kernels().find(e.name);
  if (found == kernels().end()) {
    return format("kernel %s is in the PTX but not in this stand-in: rebuild it", e.name.c_str());
  }
  const size_t bytes = found->second.parameter_bytes;
  if (e.parameters != 1 || e.parameter_bytes != bytes) {
    return format("kernel %s has %zu parameters of %zu bytes in the PTX, one of %zu bytes in this stand-in: compile "
                  "both from the same source", e.name.c_str(), e.parameters, e.parameter_bytes, bytes);
  }
  if (bytes > max_parameter_bytes) {
    return format("kernel %s has %zu bytes of parameters; %zu are allowed", e.name.c_str(), bytes,
                  max_parameter_bytes);
  }
  if (e.static_shared > default_shared) {
    return format("kernel %s uses too much shared data (%zu bytes, %u max)", e.name.c_str(), e.static_shared,
                  default_shared);
  }
  return "";
}

static Function new_function(const PtxEntry& e, const Ptx& ptx) {
  Function f{};
  f.kernel = &kernels().at(e.name);
  f.max_threads = e.max_threads ? e.max_threads : (unsigned)max_threads;
  f.min_blocks = e.min_blocks;
  f.static_shared = (unsigned)e.static_shared;
  f.dynamic_shared = default_shared - f.static_shared;
  f.hopper = ptx.target == 90 && ptx.exact;
  return f;
}

// load makes a module of PTX; log gets what is wrong with it.
static CUresult load(Module** module, const char* source, std::string& log) {
  const int newest_version = 84;  // of CUDA 12.4, which cuDriverGetVersion claims
  const Ptx ptx = parse_ptx(source, log);
  if (!log.empty()) {
    return CUDA_ERROR_INVALID_PTX;
  }
  if (ptx.version > newest_version) {
    log = format("Unsupported .version %d.%d; current version is '%d.%d'", ptx.version / 10, ptx.version % 10,
                 newest_version / 10, newest_version % 10);
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  }
  const Capability c = settings_capability();
  if (ptx.target > c.major * 10 + c.minor) {
    log = format("SM version specified by .target (sm_%d) is higher than the device's (sm_%d%d)", ptx.target, c.major,
                 c.minor);
    return CUDA_ERROR_INVALID_PTX;
  }
  if (ptx.exact && ptx.target != c.major * 10 + c.minor) {
    log = format("SM version specified by .target (sm_%da) is for no other than that; the device's is sm_%d%d",
                 ptx.target, c.major, c.minor);
    return CUDA_ERROR_INVALID_PTX;
  }
  auto m = std::make_unique<Module>();
  for (const PtxEntry& e : ptx.entries) {
    log = check_entry(e);
    if (!log.empty()) {
      fprintf(stderr, "stand-in: %s\n", log.c_str());
      return CUDA_ERROR_INVALID_PTX;
    }
    m->functions[e.name] = new_function(e, ptx);
  }
  modules().insert(m.get());
  *module = m.release();
  return CUDA_SUCCESS;
}

// Options of cuModuleLoadDataEx: the logs, with their sizes, which come back as the bytes written.
enum { INFO_LOG = 3, INFO_LOG_BYTES = 4, ERROR_LOG = 5, ERROR_LOG_BYTES = 6 };

// write_log copies a text to the buffer that an option names.
static void write_log(const std::string& text, int log, int log_bytes, unsigned count, const int* options,
                      void** values) {
  char* buffer = nullptr;
  void** bytes = nullptr;
  for (unsigned i = 0; i < count; i++) {
    if (options[i] == log) {
      buffer = (char*)values[i];
    } else if (options[i] == log_bytes) {
      bytes = &values[i];
    }
  }
  if (!buffer || !bytes) {
    return;
  }
  const size_t room = (size_t)(unsigned)(uintptr_t)*bytes;
  const int wanted = snprintf(buffer, room, "%s", text.c_str());
  *bytes = (void*)((size_t)wanted < room ? (size_t)wanted : room);
}

DRIVER_CALL cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned count, int* options, void** values) {
  return driver_call("cuModuleLoadDataEx", needs_context | unsafe_in_capture, [&] {
    std::string log;
    const CUresult r = load(module, (const char*)image, log);
    write_log(log, ERROR_LOG, ERROR_LOG_BYTES, count, options, values);
    write_log("", INFO_LOG, INFO_LOG_BYTES, count, options, values);
    return r;
  });
}

DRIVER_CALL cuModuleUnload(CUmodule module) {
  return driver_call("cuModuleUnload", needs_context | unsafe_in_capture, [&] {
    if (!modules().count(module)) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    const CUresult r = synchronize(current_context());
    modules().erase(module);
    delete module;
    return r;
  });
}

DRIVER_CALL cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return driver_call("cuModuleGetFunction", needs_context, [&] {
    if (!modules().count(module)) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    const auto found = module->functions.find(name);
    if (found == module->functions.end()) {
      return CUDA_ERROR_NOT_FOUND;
    }
    *function = &found->second;
    return CUDA_SUCCESS;
  });
}

unsigned registers_of(const Function& f) {
  const unsigned threads = f.max_threads * (f.min_blocks ? f.min_blocks : 1);
  const unsigned registers = (unsigned)registers_per_multiprocessor / threads / 8 * 8;
  return registers < 255 ? registers : 255;
}

enum {
  MAX_THREADS_PER_BLOCK = 0,
  SHARED_SIZE_BYTES = 1,
  CONST_SIZE_BYTES = 2,
  LOCAL_SIZE_BYTES = 3,
  NUM_REGS = 4,
  PTX_VERSION = 5,
  BINARY_VERSION = 6,
  MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
};

DRIVER_CALL cuFuncGetAttribute(int* value, int attribute, CUfunction function) {
  return driver_call("cuFuncGetAttribute", needs_context, [&] {
    if (!is_function(function)) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    switch (attribute) {
      case MAX_THREADS_PER_BLOCK:
        *value = (int)function->max_threads;
        break;
      case SHARED_SIZE_BYTES:
        *value = (int)function->static_shared;
        break;
      case CONST_SIZE_BYTES:
      case LOCAL_SIZE_BYTES:
        *value = 0;
        break;
      case NUM_REGS:
        *value = (int)registers_of(*function);
        break;
      case PTX_VERSION:
        *value = 80;
        break;
      case BINARY_VERSION:
        *value = settings_capability().major * 10 + settings_capability().minor;
        break;
      case MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = (int)function->dynamic_shared;
        break;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuFuncSetAttribute(CUfunction function, int attribute, int value) {
  return driver_call("cuFuncSetAttribute", needs_context, [&] {
    if (!is_function(function)) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
        value > shared_limits().block - (int)function->static_shared) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    function->dynamic_shared = (unsigned)value;
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads,
                                                        size_t dynamic_shared) {
  return driver_call("cuOccupancyMaxActiveBlocksPerMultiprocessor", needs_context, [&] {
    const size_t reserved_shared = 1024;  // of each block, by the system
    if (!is_function(function)) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (threads < 1) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const unsigned padded = ((unsigned)threads + warp_lanes - 1) / warp_lanes * warp_lanes;
    const size_t shared = function->static_shared + dynamic_shared + reserved_shared;
    size_t most = blocks_per_multiprocessor;
    for (size_t limit : {(size_t)threads_per_multiprocessor / padded,
                         (size_t)registers_per_multiprocessor / ((size_t)registers_of(*function) * padded),
                         (size_t)shared_limits().multiprocessor / shared}) {
      most = limit < most ? limit : most;
    }
    *blocks = (unsigned)threads > function->max_threads || dynamic_shared > function->dynamic_shared ? 0 : (int)most;
    return CUDA_SUCCESS;
  });
}
