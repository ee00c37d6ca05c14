#include "call.h"

#include <pthread.h>

#include "failures.h"
#include "memory.h"
#include "settings.h"

std::mutex& driver_lock() {
  static auto* lock = new std::mutex;
  return *lock;
}

static bool initialized = false;

// The key of each thread's context. Not thread_local, see pool.cc.
static pthread_key_t context_key() {
  static const pthread_key_t key = [] {
    pthread_key_t k;
    if (pthread_key_create(&k, nullptr)) {
      die_in_driver("no key for the threads' contexts");
    }
    return k;
  }();
  return key;
}

static Context* primary_context(int device) {
  static auto* contexts = new std::vector<std::unique_ptr<Context>>;
  while ((int)contexts->size() <= device) {
    auto c = std::make_unique<Context>();
    c->device = (int)contexts->size();
    c->legacy.context = c.get();
    contexts->push_back(std::move(c));
  }
  return (*contexts)[(size_t)device].get();
}

Context& current_context() { return *(Context*)pthread_getspecific(context_key()); }

CUresult admit(const char* function, unsigned needs) {
  const int failure = failure_of_call(function);
  if (failure) {
    return (CUresult)failure;
  }
  if (!initialized && (needs & needs_driver)) {
    return CUDA_ERROR_NOT_INITIALIZED;
  }
  if ((needs & needs_context) == needs_context) {
    const auto* context = (const Context*)pthread_getspecific(context_key());
    if (!context) {
      return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (context->references == 0) {
      return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    if (context->failed) {
      return (CUresult)context->failed;
    }
  }
  return needs & unsafe_in_capture ? refuse_in_capture() : CUDA_SUCCESS;
}

DRIVER_CALL cuInit(unsigned flags) {
  return driver_call("cuInit", 0, [&] {
    if (flags) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (settings_devices() == 0) {
      return CUDA_ERROR_NO_DEVICE;
    }
    initialized = true;
    return CUDA_SUCCESS;
  });
}

static bool is_device(CUdevice device) { return device >= 0 && device < settings_devices(); }

DRIVER_CALL cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return driver_call("cuDevicePrimaryCtxRetain", needs_driver, [&] {
    if (!is_device(device)) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    *context = primary_context(device);
    (*context)->references++;
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return driver_call("cuDevicePrimaryCtxRelease_v2", needs_driver, [&] {
    if (!is_device(device)) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    Context& context = *primary_context(device);
    if (context.references == 0) {
      return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (--context.references == 0) {
      synchronize(context);
      for (Stream* s : context.streams) {
        delete s;
      }
      context.streams.clear();
      context.failed = 0;
      release_all(device);
    }
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuCtxSetCurrent(CUcontext context) {
  return driver_call("cuCtxSetCurrent", needs_driver, [&] {
    pthread_setspecific(context_key(), context);
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuCtxGetCurrent(CUcontext* context) {
  return driver_call("cuCtxGetCurrent", needs_driver, [&] {
    *context = (Context*)pthread_getspecific(context_key());
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuCtxGetDevice(CUdevice* device) {
  return driver_call("cuCtxGetDevice", needs_context, [&] {
    *device = current_context().device;
    return CUDA_SUCCESS;
  });
}

DRIVER_CALL cuCtxSynchronize() {
  return driver_call("cuCtxSynchronize", needs_context | unsafe_in_capture,
                     [&] { return synchronize(current_context()); });
}
