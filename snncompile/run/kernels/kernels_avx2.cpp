#define SNN_BLOCK 32
#include "layer.hpp"

namespace snn {

extern const Kernels kernels_avx2;
const Kernels kernels_avx2 = {"avx2", SNN_BLOCK, 128, list_events, advance_piece};

}  // namespace snn
