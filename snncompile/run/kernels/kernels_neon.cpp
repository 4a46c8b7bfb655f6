#define SNN_BLOCK 16
#include "layer.hpp"

namespace snn {

extern const Kernels kernels_neon;
const Kernels kernels_neon = {"neon", SNN_BLOCK, 128, list_events, advance_piece};

}  // namespace snn
