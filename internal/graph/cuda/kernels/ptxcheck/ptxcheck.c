/*
 * ptxcheck: what the driver's compiler makes of PTX, without a GPU.
 *
 *   ptxcheck LIBRARY ARCHITECTURE FILE.ptx
 *
 * LIBRARY is libnvidia-ptxjitcompiler.so.1, which every NVIDIA driver brings. A row
 * is printed for each kernel: the architecture, registers of a thread, bytes of
 * static shared memory of a block, bytes of spilled registers stored and loaded,
 * bytes of local memory of a thread, the name. The exit status is 1 if the file
 * does not compile, if a kernel spills, or if the compiler warns.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Compiler *Handle;

/* The library's functions, which the PTX Compiler API documents. 0 is success. */
static int (*create)(Handle *, size_t, const char *);
static int (*compile)(Handle, int, const char *const *);
static int (*error_log_size)(Handle, size_t *);
static int (*error_log)(Handle, char *);
static int (*info_log_size)(Handle, size_t *);
static int (*info_log)(Handle, char *);

static void fail(const char *what, const char *why) {
  fprintf(stderr, "ptxcheck: %s: %s\n", what, why);
  exit(1);
}

static void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (found == NULL) {
    fail(name, "the library has no such function");
  }
  return found;
}

static void load(const char *path) {
  void *library = dlopen(path, RTLD_NOW);
  if (library == NULL) {
    fail(path, dlerror());
  }
  *(void **)&create = symbol(library, "nvPTXCompilerCreate");
  *(void **)&compile = symbol(library, "nvPTXCompilerCompile");
  *(void **)&error_log_size = symbol(library, "nvPTXCompilerGetErrorLogSize");
  *(void **)&error_log = symbol(library, "nvPTXCompilerGetErrorLog");
  *(void **)&info_log_size = symbol(library, "nvPTXCompilerGetInfoLogSize");
  *(void **)&info_log = symbol(library, "nvPTXCompilerGetInfoLog");
}

static char *allocate(size_t bytes) {
  char *memory = calloc(1, bytes);
  if (memory == NULL) {
    fail("memory", "there is too little");
  }
  return memory;
}

static char *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
    fail(path, "it cannot be read");
  }
  *size = (size_t)ftell(file);
  rewind(file);
  char *text = allocate(*size + 1);
  if (fread(text, 1, *size, file) != *size) {
    fail(path, "it cannot be read");
  }
  fclose(file);
  return text;
}

static char *log_of(Handle handle, int (*get_size)(Handle, size_t *), int (*get)(Handle, char *)) {
  size_t size = 0;
  if (get_size(handle, &size) != 0) {
    size = 0;
  }
  char *text = allocate(size + 1);
  if (size > 0 && get(handle, text) != 0) {
    fail("compiler", "it gives no log");
  }
  return text;
}

/* Reads the compiler's log, which has three lines for a kernel, and prints its row.
   Returns whether one spills or there is a warning. */
static int print_rows(char *log, const char *architecture) {
  char kernel[256] = "";
  int local = 0, stores = 0, loads = 0, bad = 0;
  for (char *line = strtok(log, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    char *at;
    if ((at = strstr(line, "Compiling entry function '")) != NULL) {
      sscanf(at, "Compiling entry function '%255[^']'", kernel);
      local = stores = loads = 0;
    } else if ((at = strstr(line, "bytes stack frame")) != NULL) {
      for (at = line; *at != '\0' && strchr("0123456789", *at) == NULL; at++) {
      }
      sscanf(at, "%d bytes stack frame, %d bytes spill stores, %d bytes spill loads", &local, &stores, &loads);
    } else if ((at = strstr(line, "Used ")) != NULL) {
      int registers = 0, shared = 0;
      sscanf(at, "Used %d registers", &registers);
      for (char *item = at; item != NULL; item = strchr(item + 1, ',')) {
        int bytes = 0;
        char kind[8] = "";
        if (sscanf(item, ", %d bytes %4s", &bytes, kind) == 2 && strcmp(kind, "smem") == 0) {
          shared = bytes;
        }
      }
      int spills = stores + loads;
      bad |= spills > 0;
      printf("%-7s %9d %7d %7d %7d  %s%s\n", architecture, registers, shared, spills, local, kernel,
             spills > 0 ? "  SPILLS" : "");
    } else if (strstr(line, "warning") != NULL || strstr(line, "Potential Performance Loss") != NULL ||
               strstr(line, "serialized") != NULL) {
      bad = 1;
      printf("%s\n", line);
    }
  }
  return bad;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fail("usage", "ptxcheck LIBRARY ARCHITECTURE FILE.ptx");
  }
  const char *architecture = argv[2], *path = argv[3];
  load(argv[1]);
  size_t size;
  char *text = read_file(path, &size);
  Handle handle;
  if (create(&handle, size, text) != 0) {
    fail(path, "the compiler does not take it");
  }
  char option[64];
  snprintf(option, sizeof option, "--gpu-name=%s", architecture);
  const char *options[] = {option, "--verbose"};
  if (compile(handle, 2, options) != 0) {
    fail(path, log_of(handle, error_log_size, error_log));
  }
  return print_rows(log_of(handle, info_log_size, info_log), architecture);
}
