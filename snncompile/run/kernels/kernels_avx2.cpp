#define SNN_BLOCK 32
#include "steps.hpp"

namespace snn {

extern const Kernels kernels_avx2;
const Kernels kernels_avx2 = {
    "avx2", SNN_BLOCK, 128, count, take, list_events, advance_piece, spread, multiply_piece, step_piece, false, 1.5, 3000};

}  // namespace snn
