#define SNN_BLOCK 16
#include "layer.hpp"

namespace snn {

extern const Kernels kernels_plain;
const Kernels kernels_plain = {"plain", SNN_BLOCK, 64, list_events, advance_piece};

}  // namespace snn
