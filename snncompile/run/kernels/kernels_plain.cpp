#define SNN_BLOCK 16
#include "steps.hpp"

namespace snn {

extern const Kernels kernels_plain;
const Kernels kernels_plain = {
    "plain", SNN_BLOCK, 64, count, take, list_events, advance_piece, spread, multiply_piece, step_piece, false, 0, 0};

}  // namespace snn
