#define SNN_BLOCK 64
#include "matrix.hpp"

namespace snn {

extern const Kernels kernels_vnni;
const Kernels kernels_vnni = {"vnni", SNN_BLOCK, 256, list_events, advance_piece, spread, multiply_piece, 6};

}  // namespace snn
