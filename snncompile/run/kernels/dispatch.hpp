#pragma once

#include <vector>

#include "network.hpp"

namespace snn {

std::vector<const Kernels *> available();

}  // namespace snn
