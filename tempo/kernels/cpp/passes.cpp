// The passes for one instruction set: compiled once for each, with TEMPO_ISA as its name.
#include "check.h"
#include "transform.h"
#include "windows.h"
#include "winograd.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

extern "C" const Passes JOIN(tempo_passes_, TEMPO_ISA) = {
    TEXT(TEMPO_ISA), TEMPO_ISA::transform, TEMPO_ISA::survey,
    {TEMPO_ISA::tiles_pass<true>, TEMPO_ISA::tiles_pass<false>, TEMPO_ISA::windows_pass<true>,
     TEMPO_ISA::windows_pass<false>, TEMPO_ISA::rows_pass<true>, TEMPO_ISA::rows_pass<false>}};
