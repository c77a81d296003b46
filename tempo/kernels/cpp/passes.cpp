// The passes for one instruction set: compiled once for each, with TEMPO_ISA as its name.
#include "check.h"
#include "transform.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

extern "C" const Passes JOIN(tempo_passes_, TEMPO_ISA);
const Passes JOIN(tempo_passes_, TEMPO_ISA) = {TEXT(TEMPO_ISA), TEMPO_ISA::transform, TEMPO_ISA::project, TEMPO_ISA::contract};
