// Allocation, copies and fills.
#include <cstring>

#include "call.h"
#include "memory.h"
#include "settings.h"

const int host = -1;  // Allocation.device of page-locked memory

DRIVER_CALL cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  return driver_call("cuMemAlloc_v2", needs_context | unsafe_in_capture, [&] {
    if (bytes == 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const int device = current_context().device;
    const size_t used = allocated(device);
    if (used > settings_memory() || bytes > settings_memory() - used) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    const Allocation* a = allocate(bytes, device);
    if (!a) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *address = a->base;
    return CUDA_SUCCESS;
  });
}

// Memory is freed after all that may use it.
static CUresult release_when_idle(uintptr_t base, int device) {
  const CUresult r = synchronize(current_context());
  if (r != CUDA_SUCCESS) {
    return r;
  }
  return release(base, device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_CALL cuMemFree_v2(CUdeviceptr address) {
  return driver_call("cuMemFree_v2", needs_context | unsafe_in_capture, [&] {
    return release_when_idle(address, current_context().device);
  });
}

DRIVER_CALL cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  return driver_call("cuMemHostAlloc", needs_context | unsafe_in_capture, [&] {
    if (bytes == 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const Allocation* a = allocate(bytes, host);
    if (!a) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *address = (void*)a->base;
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuMemFreeHost(void* address) {
  return driver_call("cuMemFreeHost", needs_context | unsafe_in_capture, [&] {
    return release_when_idle((uintptr_t)address, host);
  });
}

static bool on_device(CUdeviceptr address, size_t bytes) {
  const Allocation* a = find_allocation(address, bytes);
  return a && a->device == current_context().device;
}

static bool is_page_locked(const void* p, size_t bytes) {
  const Allocation* a = find_allocation((uintptr_t)p, bytes);
  return a && a->device == host;
}

// require_memory ends the process if memory that a copy or a fill uses has been freed since it was asked for, which
// can happen to a graph.
static void require_memory(CUdeviceptr address, size_t bytes) {
  if (!find_allocation(address, bytes)) {
    die_in_driver("a copy or fill of %zu bytes at %p, which has been freed", bytes, (void*)address);
  }
}

static void copy_to_device(CUdeviceptr to, const void* from, size_t bytes) {
  require_memory(to, bytes);
  memcpy((void*)to, from, bytes);
}

static void copy_to_host(void* to, CUdeviceptr from, size_t bytes) {
  require_memory(from, bytes);
  memcpy(to, (const void*)from, bytes);
}

static void copy_on_device(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  require_memory(to, bytes);
  require_memory(from, bytes);
  memmove((void*)to, (const void*)from, bytes);
}

DRIVER_CALL cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return driver_call("cuMemcpyHtoD_v2", needs_context, [&] {
    return on_device(to, bytes) ? run_synchronously(current_context(), [=] { copy_to_device(to, from, bytes); })
                                : CUDA_ERROR_INVALID_VALUE;
  });
}

DRIVER_CALL cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return driver_call("cuMemcpyDtoH_v2", needs_context, [&] {
    return on_device(from, bytes) ? run_synchronously(current_context(), [=] { copy_to_host(to, from, bytes); })
                                  : CUDA_ERROR_INVALID_VALUE;
  });
}

DRIVER_CALL cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return driver_call("cuMemcpyDtoD_v2", needs_context, [&] {
    return on_device(to, bytes) && on_device(from, bytes)
               ? run_synchronously(current_context(), [=] { copy_on_device(to, from, bytes); })
               : CUDA_ERROR_INVALID_VALUE;
  });
}

DRIVER_CALL cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  return driver_call("cuMemsetD8_v2", needs_context, [&] {
    return on_device(to, count) ? run_synchronously(current_context(),
                                                    [=] {
                                                      require_memory(to, count);
                                                      memset((void*)to, value, count);
                                                    })
                                : CUDA_ERROR_INVALID_VALUE;
  });
}

// The driver reads memory that is not page-locked before it returns, and has written such memory when it returns.
DRIVER_CALL cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return driver_call("cuMemcpyHtoDAsync_v2", needs_context, [&] {
    Stream* s = find_stream(current_context(), stream);
    if (!s) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!on_device(to, bytes)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (is_page_locked(from, bytes)) {
      return enqueue(*s, [=] { copy_to_device(to, from, bytes); });
    }
    if (s->capture) {
      return invalidate(*s->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    std::vector<char> staged((const char*)from, (const char*)from + bytes);
    return enqueue(*s, [to, staged] { copy_to_device(to, staged.data(), staged.size()); });
  });
}

DRIVER_CALL cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return driver_call("cuMemcpyDtoHAsync_v2", needs_context, [&] {
    Stream* s = find_stream(current_context(), stream);
    if (!s) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!on_device(from, bytes)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const bool waits = !is_page_locked(to, bytes);
    if (waits && s->capture) {
      return invalidate(*s->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    const CUresult r = enqueue(*s, [=] { copy_to_host(to, from, bytes); });
    return r == CUDA_SUCCESS && waits ? synchronize(*s) : r;
  });
}

DRIVER_CALL cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return driver_call("cuMemcpyDtoDAsync_v2", needs_context, [&] {
    Stream* s = find_stream(current_context(), stream);
    if (!s) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    return on_device(to, bytes) && on_device(from, bytes) ? enqueue(*s, [=] { copy_on_device(to, from, bytes); })
                                                          : CUDA_ERROR_INVALID_VALUE;
  });
}

template <class Value>
static CUresult fill(const char* function, CUdeviceptr to, Value value, size_t count, CUstream stream) {
  return driver_call(function, needs_context, [&] {
    Stream* s = find_stream(current_context(), stream);
    if (!s) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (to % sizeof(Value) || !on_device(to, count * sizeof(Value))) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return enqueue(*s, [=] {
      require_memory(to, count * sizeof(Value));
      for (size_t i = 0; i < count; i++) {
        ((Value*)to)[i] = value;
      }
    });
  });
}

DRIVER_CALL cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return fill("cuMemsetD8Async", to, value, count, stream);
}

DRIVER_CALL cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  return fill("cuMemsetD32Async", to, value, count, stream);
}
