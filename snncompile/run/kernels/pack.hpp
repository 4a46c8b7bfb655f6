#pragma once

#include "engine.hpp"

namespace snn {

size_t row_bytes(Form form, int tile, bool wide);
// ``before``: channels of the first tile that come before the weights' own, and get zeros.
void pack(const Weights &weights, Form form, int tile, int tiles, int before, bool wide, int block, uint8_t *to);

// The same weights for products of matrices (matrix.hpp): which counts are multiplied by which rows, and the rows.
std::vector<Block> blocks_of(const Connection &way, int channels);
size_t matrix_bytes(int channels, int blocks);
void pack_matrix(const Weights &weights, int before, const std::vector<Block> &blocks, int8_t *to);

}  // namespace snn
