#define SNN_BLOCK 64
#include "matrix.hpp"

namespace snn {

extern const Kernels kernels_amx;
const Kernels kernels_amx = {"amx", SNN_BLOCK, 256, list_events, advance_piece, spread, multiply_piece, 25};

}  // namespace snn
