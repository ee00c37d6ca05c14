/* door.c: loads the driver's library and fills the slots of slots.S; see door.h. */
#include "door.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef void (*Function)(void);

/* The slots take any arguments: in the calling conventions of amd64 and arm64 the
   caller cleans up, so a function that ignores its arguments can stand for all. */
static CUresult answer_not_open(void) { return CUDA_ERROR_NOT_INITIALIZED; }

static CUresult answer_not_found(void) { return CUDA_ERROR_NOT_FOUND; }

#define SLOT(name) #name,
static const char *const slot_names[] = {
#include "symbols.h"
};
#undef SLOT

enum { SLOTS = sizeof slot_names / sizeof slot_names[0] };

/* In the order of symbols.h, as slots.S counts them. */
#define SLOT(name) (Function)answer_not_open,
Function door_slots[SLOTS] = {
#include "symbols.h"
};
#undef SLOT

static Door door;

CUresult cuInit(unsigned int flags) {
  (void)flags;
  return CUDA_SUCCESS;
}

/* The driver's word for what cuInit answered. */
static const char *error_text(void *library, CUresult code) {
  CUresult (*get_error_string)(CUresult, const char **) =
      (CUresult(*)(CUresult, const char **))dlsym(library, "cuGetErrorString");
  const char *text = NULL;
  if (get_error_string == NULL || get_error_string(code, &text) != CUDA_SUCCESS || text == NULL) {
    return "";
  }
  return text;
}

static void open_library(void) {
  const char *chosen = getenv("DDPM_LIBCUDA");
  door.library = strdup(chosen != NULL && chosen[0] != '\0' ? chosen : "libcuda.so.1");
  door.text = "";
  void *library = dlopen(door.library, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    door.state = DOOR_NO_LIBRARY;
    door.text = strdup(dlerror());
    return;
  }
  CUresult (*init)(unsigned int) = (CUresult(*)(unsigned int))dlsym(library, "cuInit");
  if (init == NULL) {
    door.state = DOOR_NOT_A_DRIVER;
    return;
  }
  door.code = init(0);
  if (door.code != CUDA_SUCCESS) {
    door.state = DOOR_INIT_FAILED;
    door.text = error_text(library, door.code);
    return;
  }
  for (int i = 0; i < SLOTS; i++) {
    Function found = (Function)dlsym(library, slot_names[i]);
    door_slots[i] = found != NULL ? found : (Function)answer_not_found;
  }
  door.state = DOOR_OPEN;
}

const Door *door_open(void) {
  if (door.library == NULL) {
    open_library();
  }
  return &door;
}

int door_has(const char *name) {
  for (int i = 0; i < SLOTS; i++) {
    if (strcmp(slot_names[i], name) == 0) {
      return door_slots[i] != (Function)answer_not_found && door_slots[i] != (Function)answer_not_open;
    }
  }
  return 0;
}
