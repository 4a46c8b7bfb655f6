#define SNN_BLOCK 64
#include "steps.hpp"

namespace snn {

extern const Kernels kernels_avx512;
const Kernels kernels_avx512 = {
    "avx512", SNN_BLOCK, 256, count, take, list_events, advance_piece, spread, multiply_piece, step_piece, false, 2, 3000};

}  // namespace snn
