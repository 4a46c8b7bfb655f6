#define SNN_BLOCK 64
#include "steps.hpp"

namespace snn {

extern const Kernels kernels_amx;
const Kernels kernels_amx = {
    "amx", SNN_BLOCK, 256, count, take, list_events, advance_piece, spread, multiply_piece, step_piece, true, 18, 3500};

}  // namespace snn
