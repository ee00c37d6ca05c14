#include "settings.h"

#include <cstdio>
#include <cstdlib>

#include "worker.h"

// setting is a number from the environment. A value that is none, or out of range, would make a test meaningless.
static u64 setting(const char* name, u64 least, u64 most, u64 otherwise) {
  const char* text = getenv(name);
  if (!text || !*text) {
    return otherwise;
  }
  char* end;
  const u64 v = strtoull(text, &end, 10);
  if (*end || v < least || v > most) {
    die_in_driver("%s=%s: want a number from %llu to %llu", name, text, least, most);
  }
  return v;
}

u64 settings_seed() { return setting("STANDIN_SEED", 0, ~0ull, 1); }
int settings_workers() { return (int)setting("STANDIN_WORKERS", 1, 64, 2); }
int settings_devices() { return (int)setting("STANDIN_DEVICES", 0, 8, 1); }
int settings_multiprocessors() { return (int)setting("STANDIN_MULTIPROCESSORS", 1, 1024, 108); }
size_t settings_memory() { return (size_t)setting("STANDIN_MEMORY", 1, (u64)1 << 40, (u64)4 << 30); }

Capability settings_capability() {
  const char* text = getenv("STANDIN_CAPABILITY");
  Capability c{8, 0};
  if (text && *text && (sscanf(text, "%d.%d", &c.major, &c.minor) != 2 || c.major < 1 || c.minor < 0)) {
    die_in_driver("STANDIN_CAPABILITY=%s: want a number like 8.0", text);
  }
  return c;
}
