// Which instruction sets this processor has, best first.
#include "dispatch.hpp"

namespace snn {

#if defined(SNN_X86)
extern const Kernels kernels_avx512, kernels_avx2;
#endif
#if defined(SNN_NEON)
extern const Kernels kernels_neon;
#endif
extern const Kernels kernels_plain;

std::vector<const Kernels *> available() {
    std::vector<const Kernels *> found;
#if defined(SNN_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        found.push_back(&kernels_avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi"))
        found.push_back(&kernels_avx2);
#endif
#if defined(SNN_NEON)
    found.push_back(&kernels_neon);  // every aarch64 has it
#endif
    found.push_back(&kernels_plain);
    return found;
}

}  // namespace snn
