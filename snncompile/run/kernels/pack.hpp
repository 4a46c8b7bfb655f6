#pragma once

#include "engine.hpp"

namespace snn {

size_t row_bytes(Form form, int tile, bool wide);
void pack(const Weights &weights, Form form, int tile, int tiles, bool wide, int block, uint8_t *to);

}  // namespace snn
