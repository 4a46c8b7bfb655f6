// Which instruction sets this processor has, best first.
#include "dispatch.hpp"

#if defined(SNN_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace snn {

#if defined(SNN_X86)
extern const Kernels kernels_avx512, kernels_avx2, kernels_vnni;
#endif
#if defined(SNN_AMX)
extern const Kernels kernels_amx;
#endif
#if defined(SNN_NEON)
extern const Kernels kernels_neon;
#endif
extern const Kernels kernels_plain;

namespace {

#if defined(SNN_AMX)
// Tiles are a state of their own, which Linux gives a process that asks for it (since 5.16); elsewhere the answer is no.
bool has_tiles() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool tiles = d >> 24 & 1, bytes = d >> 25 & 1;
    constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return tiles && bytes && syscall(SYS_arch_prctl, request, tile_data) == 0;
}
#endif

}  // namespace

std::vector<const Kernels *> available() {
    std::vector<const Kernels *> found;
#if defined(SNN_X86)
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#if defined(SNN_AMX)
    if (vnni && has_tiles()) found.push_back(&kernels_amx);
#endif
    if (vnni) found.push_back(&kernels_vnni);
    if (avx512) found.push_back(&kernels_avx512);
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
