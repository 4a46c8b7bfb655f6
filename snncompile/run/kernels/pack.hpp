#pragma once

#include "engine.hpp"

namespace snn {

size_t row_bytes(Form form, int tile, bool wide);
void pack(const Weights &weights, Form form, int tile, int tiles, bool wide, int block, uint8_t *to);

// The same weights for products of matrices (matrix.hpp): which counts are multiplied by which rows, and the rows.
std::vector<Block> blocks_of(const Connection &way, int channels);
size_t matrix_bytes(int channels, int blocks);
void pack_matrix(const Weights &weights, const std::vector<Block> &blocks, int8_t *to);

}  // namespace snn
