// The one library: passes for every instruction set that was compiled in, chosen at run time.
#include <cstring>

#include "abi.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

extern "C" const Passes tempo_passes_portable;
#if defined(__x86_64__)
extern "C" const Passes tempo_passes_avx2, tempo_passes_avx512;
#endif

EXPORT int tempo_abi() { return ABI; }

// The passes called `name`, or null where this processor lacks their instructions.
EXPORT const Passes* tempo_passes(const char* name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
                   ? &tempo_passes_avx512
                   : nullptr;
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &tempo_passes_avx2 : nullptr;
#endif
    return strcmp(name, "portable") ? nullptr : &tempo_passes_portable;
}
