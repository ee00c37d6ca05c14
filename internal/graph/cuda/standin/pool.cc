#include "pool.h"

#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "hopper_block.h"
#include "memory.h"
#include "module.h"
#include "races.h"
#include "settings.h"

// What kernels declare as SHARED is all that this library keeps in thread-local storage, beside this anchor, which
// makes sure that the storage exists. Nothing else may: it is filled with poison.
static thread_local char anchor;

static int find_thread_storage(dl_phdr_info* info, size_t, void* result) {
  SharedRange& range = *(SharedRange*)result;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& segment = info->dlpi_phdr[i];
    const uintptr_t from = (uintptr_t)info->dlpi_tls_data;
    if (segment.p_type == PT_TLS && from <= (uintptr_t)&anchor && (uintptr_t)&anchor < from + segment.p_memsz) {
      range.base = from;
      range.bytes = segment.p_memsz;
      return 1;
    }
  }
  return 0;
}

static char* must_map(size_t bytes) {
  char* p = map_zeros(bytes);
  if (!p) {
    die_in_driver("no memory for a worker");
  }
  return p;
}

// new_region is memory for a worker and its stacks, aligned to its size.
static char* new_region() {
  char* mapping = must_map(2 * region_bytes);
  char* region = (char*)(((uintptr_t)mapping + region_bytes - 1) & ~(region_bytes - 1));
  if (region > mapping) {
    munmap(mapping, (size_t)(region - mapping));
  }
  munmap(region + region_bytes, (size_t)(mapping + region_bytes - region));
  return region;
}

// new_worker makes the worker of the calling thread.
static Worker* new_worker() {
  const size_t page = 4096;
  Worker* w = new (new_region()) Worker{};
  for (u32 place = 0; place < max_threads; place++) {
    w->threads[place].place = place;
  }
  const size_t dynamic_bytes = (max_shared + page - 1) / page * page;
  w->dynamic_end = must_map(dynamic_bytes + page) + dynamic_bytes;
  guard_page(w->dynamic_end);
  if (!dl_iterate_phdr(find_thread_storage, &w->static_shared)) {
    die_in_driver("cannot find this library's thread-local storage");
  }
  w->dynamic_shared.records = (SharedRecords*)must_map(shared_record_bytes(max_shared));
  w->static_shared.records = (SharedRecords*)must_map(shared_record_bytes(w->static_shared.bytes));
  w->static_touched_to = w->static_shared.bytes;
  w->hopper = new_hopper_block();
  return w;
}

// forget clears the records of shared memory.
static void forget(Worker& w) {
  memset((void*)w.dynamic_shared.records, 0, shared_record_bytes(max_shared));
  memset((void*)w.static_shared.records, 0, shared_record_bytes(w.static_shared.bytes));
}

struct Pool {
  std::mutex lock;
  std::condition_variable changed;
  Launch* launch = nullptr;
  u64 number = 0;    // of the launch
  int running = 0;   // workers that have not finished it
  bool forget = false;  // the workers shall clear their records first
  bool failed = false;  // a worker has found a fault
  std::vector<Worker*> workers;
  std::vector<pthread_t> threads;
  u32 next_serial = 1;
};

static Pool& pool() {
  static auto* p = new Pool;
  return *p;
}

// The handler that was there before, of the Go program.
static struct sigaction previous[64];

// own_worker is the worker whose thread calls it, or null. A fault handler may call it: the pool does not change while
// kernels run.
static Worker* own_worker() {
  Pool& p = pool();
  for (size_t i = 0; i < p.threads.size(); i++) {
    if (pthread_equal(p.threads[i], pthread_self())) {
      return p.workers[i];
    }
  }
  return nullptr;
}

static void handle_fault(int signal, siginfo_t* info, void* context) {
  const Worker* w = own_worker();
  if (w && w->launch) {
    const uintptr_t address = (uintptr_t)info->si_addr;
    if (address - (uintptr_t)w < region_bytes) {
      die(*w, "stack overflow: more than 60 KB of local variables");
    }
    char near[160];
    describe_address(address, near, sizeof near);
    die(*w, "access to %p failed: %s", info->si_addr, near);
  }
  const struct sigaction& before = previous[signal];
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  } else {
    sigaction(signal, &before, nullptr);  // the access repeats and ends the process
  }
}

static void install_fault_handler() {
  struct sigaction action {};
  action.sa_sigaction = handle_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGSEGV, SIGBUS}) {
    sigaction(signal, &action, &previous[signal]);
  }
}

// Faults are handled on a stack of their own, as a thread's stack may be what has overflowed.
static void use_signal_stack() {
  const size_t bytes = 65536;
  stack_t stack{};
  stack.ss_sp = malloc(bytes);
  stack.ss_size = bytes;
  sigaltstack(&stack, nullptr);
}

static void work(size_t index) {
  use_signal_stack();
  *(volatile char*)&anchor = 0;
  Worker* w = new_worker();
  Pool& p = pool();
  std::unique_lock<std::mutex> lock(p.lock);
  p.workers[index] = w;
  p.threads[index] = pthread_self();
  p.running--;
  p.changed.notify_all();
  u64 done = 0;
  for (;;) {
    p.changed.wait(lock, [&] { return p.number != done; });
    done = p.number;
    if (p.forget) {
      forget(*w);
    }
    for (const Allocation*& recent : w->recent) {
      recent = nullptr;
    }
    w->launch = p.launch;
    lock.unlock();
    run_blocks(*w);
    lock.lock();
    w->launch = nullptr;
    if (--p.running == 0) {
      p.changed.notify_all();
    }
  }
}

static void start_workers(Pool& p, std::unique_lock<std::mutex>& lock) {
  const size_t count = (size_t)settings_workers();
  p.workers.resize(count);
  p.threads.resize(count);
  p.running = (int)count;
  // The program's signals are not for the workers, their own faults are.
  sigset_t all, before;
  sigfillset(&all);
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    sigdelset(&all, signal);
  }
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (size_t i = 0; i < count; i++) {
    std::thread(work, i).detach();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  p.changed.wait(lock, [&] { return p.running == 0; });
  install_fault_handler();
}

static void shuffle_blocks(Launch& launch, u32 blocks) {
  u64 state = launch.seed | 1;
  launch.order.resize(blocks);
  for (u32 i = 0; i < blocks; i++) {
    const u32 j = random_below(state, i + 1);
    launch.order[i] = launch.order[j];
    launch.order[j] = i;
  }
}

void run_launch(Launch& launch) {
  Pool& p = pool();
  std::unique_lock<std::mutex> lock(p.lock);
  if (p.workers.empty()) {
    start_workers(p, lock);
  }
  const u64 blocks = (u64)launch.grid.x * launch.grid.y * launch.grid.z;
  if (blocks >= max_serial) {
    die_in_driver("kernel %s: %llu blocks are too many for the stand-in", launch.kernel->name, blocks);
  }
  p.forget = p.next_serial + blocks > max_serial;
  if (p.forget) {
    p.next_serial = 1;
    clear_records();
  }
  launch.first_serial = p.next_serial;
  p.next_serial += (u32)blocks;
  launch.seed = settings_seed() * 0x9e3779b97f4a7c15u + p.number;
  launch.released.reset(new std::atomic<u64>[blocks]());
  shuffle_blocks(launch, (u32)blocks);
  p.launch = &launch;
  p.running = (int)p.workers.size();
  p.number++;
  p.changed.notify_all();
  p.changed.wait(lock, [&] { return p.running == 0 || p.failed; });
  if (p.failed) {
    abort();
  }
}

// say writes one line to standard error, whole, also from a fault handler.
static void say(const char* prefix, const char* format, va_list arguments) {
  char line[1024];
  int length = snprintf(line, sizeof line, "%s", prefix);
  length += vsnprintf(line + length, sizeof line - (size_t)length - 1, format, arguments);
  length = length < (int)sizeof line - 1 ? length : (int)sizeof line - 2;
  line[length] = '\n';
  if (write(STDERR_FILENO, line, (size_t)length + 1) < 0) {
    abort();
  }
}

// fail leaves it to the thread that asked for the launch to end the process: a Go program then shows its stack.
[[noreturn]] static void fail() {
  Pool& p = pool();
  {
    std::lock_guard<std::mutex> lock(p.lock);
    p.failed = true;
    p.changed.notify_all();
  }
  for (;;) {
    pause();
  }
}

void die(const Worker& w, const char* format, ...) {
  // Two workers may find the same fault; the first one tells.
  static std::atomic<bool> told{false};
  while (told.exchange(true)) {
    pause();
  }
  char prefix[256];
  snprintf(prefix, sizeof prefix, "stand-in: kernel %s, block (%u,%u,%u), thread %u: ", w.launch->kernel->name,
           w.block.x, w.block.y, w.block.z, w.current->index);
  va_list arguments;
  va_start(arguments, format);
  say(prefix, format, arguments);
  va_end(arguments);
  fail();
}

void die_in_driver(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("stand-in: ", format, arguments);
  va_end(arguments);
  abort();
}
