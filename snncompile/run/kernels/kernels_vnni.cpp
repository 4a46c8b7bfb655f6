#define SNN_BLOCK 64
#include "steps.hpp"

namespace snn {

extern const Kernels kernels_vnni;
const Kernels kernels_vnni = {
    "vnni", SNN_BLOCK, 256, count, take, list_events, advance_piece, spread, multiply_piece, step_piece, false, 4, 2000};

}  // namespace snn
