#define SNN_BLOCK 16
#include "steps.hpp"

namespace snn {

extern const Kernels kernels_neon;
const Kernels kernels_neon = {
    "neon", SNN_BLOCK, 128, count, take, list_events, advance_piece, spread, multiply_piece, step_piece, false, 0, 0};

}  // namespace snn
