/*
 * door.h: how a program that may run without an NVIDIA driver gets at one.
 *
 * libcuda.a of this folder defines every function of cuda.h as a jump through a
 * slot. Until the door is open the slots answer CUDA_ERROR_NOT_INITIALIZED, and
 * cuInit answers success, because gorgonia.org/cu calls it when the program starts
 * and ends the program if it fails. door_open loads the driver's library and
 * points the slots at it.
 */
#ifndef DDPM_DOOR_H
#define DDPM_DOOR_H

#include <cuda.h>

typedef enum {
  DOOR_OPEN,
  DOOR_NO_LIBRARY,    /* it cannot be loaded: text is the loader's reason */
  DOOR_NOT_A_DRIVER,  /* it was loaded and has no cuInit */
  DOOR_INIT_FAILED,   /* cuInit answered code; text is the driver's word for it */
} DoorState;

typedef struct {
  DoorState state;
  const char *library;  /* $DDPM_LIBCUDA, or libcuda.so.1 */
  CUresult code;
  const char *text;     /* never null */
} Door;

/*
 * Opens the door and says how that went. What it points to is the same on each
 * call, and only the first does anything: that one must not run beside another.
 */
const Door *door_open(void);

/* Whether the driver exports a function of symbols.h. One that it lacks answers
   CUDA_ERROR_NOT_FOUND. Before the door is open, all are lacking. */
int door_has(const char *name);

#endif
