// What C++ leaves undefined in kernels. The compiler (-fsanitize, see build.sh) adds checks to their code and calls the
// functions here, which it names, where one fails.
#include <cstdio>

#include "worker.h"

// As the compiler lays them out.
struct SourceLocation {
  const char* file;
  u32 line, column;
};

struct TypeDescription {
  u16 kind, info;
  char name[1];  // with quotes, and more than one character
};

struct OutOfBounds {
  SourceLocation where;
  const TypeDescription* array;
  const TypeDescription* index;
};

struct TypeMismatch {
  SourceLocation where;
  const TypeDescription* type;
  u8 log_alignment;
  u8 kind;
};

[[noreturn]] static void report(const SourceLocation& where, const char* what) {
  die(this_worker(), "%s:%u: %s", where.file, where.line, what);
}

extern "C" {

void __ubsan_handle_out_of_bounds_abort(const OutOfBounds* data, u64 index) {
  die(this_worker(), "%s:%u: index %lld is out of the bounds of %s", data->where.file, data->where.line, (i64)index,
      data->array->name);
}

void __ubsan_handle_type_mismatch_v1_abort(const TypeMismatch* data, const void* p) {
  die(this_worker(), "%s:%u: %p is not aligned to %d bytes, as %s has to be", data->where.file, data->where.line, p,
      1 << data->log_alignment, data->type->name);
}

void __ubsan_handle_shift_out_of_bounds_abort(const SourceLocation* where, u64, u64) {
  report(*where, "a shift by more bits than there are, or by less than none");
}

void __ubsan_handle_divrem_overflow_abort(const SourceLocation* where, u64, u64) {
  report(*where, "division by zero, or of the least number by -1");
}

void __ubsan_handle_add_overflow_abort(const SourceLocation* where, u64, u64) { report(*where, "integer overflow"); }
void __ubsan_handle_sub_overflow_abort(const SourceLocation* where, u64, u64) { report(*where, "integer overflow"); }
void __ubsan_handle_mul_overflow_abort(const SourceLocation* where, u64, u64) { report(*where, "integer overflow"); }
void __ubsan_handle_negate_overflow_abort(const SourceLocation* where, u64) { report(*where, "integer overflow"); }
}
